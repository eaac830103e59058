"""Limits on a request's body: how large it may be, and how long it may take to arrive."""

import time
from asyncio import timeout
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Send

from app.web.request_summary import RequestSummary
from app.web.settings import WebSettings


class RequestBody:
    """Passes a request's body to the application, and bounds its size and its time.

    Only waiting for the client counts towards the time. A body that the application leaves unread
    is read and dropped behind the answer: it is bounded as well, and the client, which may still be
    sending, gets the answer.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        summary: RequestSummary,
        headers: dict[bytes, bytes],
        settings: WebSettings,
    ) -> None:
        """Wrap the two channels of a request.

        Args:
            receive: of the server.
            send: of the server.
            summary: whose status says whether an answer has begun.
            headers: of the request.
            settings: with the limits. More bytes are refused with 413, more time with 408.
        """
        self._receive = receive
        self._send = send
        self._exchange = summary
        self._bytes_left = settings.max_body_bytes
        self._seconds_left = settings.request_body_timeout_seconds
        self._awaits_consent = b"expect" in headers  # the client sends after `100 Continue` only
        self._early: Message | None = None  # received before the application asked for it
        self._is_complete = False
        self._is_answered = False

    async def receive(self) -> Message:
        """Receive for the application.

        Raises:
            HTTPException: 408 or 413; FastAPI lets no other kind through while it reads a body.
        """
        message, self._early = self._early, None
        if message is None and self._is_complete:
            return await self._receive()  # the disconnect, which may come at any time
        try:
            message = message or await self._receive_within(self._seconds_left)
        except TimeoutError:
            if self._exchange.status:
                return {"type": "http.disconnect"}
            raise HTTPException(408) from None
        self._bytes_left -= len(message.get("body", b""))
        if self._bytes_left < 0:
            raise HTTPException(413)
        return message

    async def send(self, message: Message) -> None:
        """Send for the application; the end of the answer waits for finish()."""
        if not self._is_complete:
            if message["type"] == "http.response.start":
                if not self._awaits_consent:
                    with suppress(TimeoutError):  # most bodies are there already
                        self._early = self._early or await self._receive_within(0)
                if not self._is_complete:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            elif not message.get("more_body"):
                self._is_answered = True
                message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Drop the rest of the body, if the answer was sent before its end; then end the answer."""
        if self._is_answered:
            with suppress(TimeoutError):
                while not self._is_complete:
                    await self._receive_within(self._seconds_left)
            await self._send({"type": "http.response.body"})

    async def _receive_within(self, seconds: float) -> Message:
        started = time.monotonic()
        try:
            async with timeout(seconds):
                message = await self._receive()
        finally:
            self._seconds_left -= time.monotonic() - started
        self._is_complete = not message.get("more_body")
        return message
