"""Limit the size of a request body, and the time until it has arrived."""

import time
from asyncio import timeout
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Send

from app.web.request_summary import RequestSummary
from app.web.settings import WebSettings


class RequestBody:
    """Pass a request body to the application within limits of size and time.

    Only the wait for the client counts as time. If the application does not read the whole body,
    the rest is read and dropped after the response, within the same limits. A client that is still
    sending can then read the response.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        summary: RequestSummary,
        headers: dict[bytes, bytes],
        settings: WebSettings,
    ) -> None:
        """Wrap the two functions of an ASGI request.

        Args:
            receive: of the server.
            send: of the server.
            summary: its status is set as soon as the response has begun.
            headers: of the request.
            settings: the limits. A larger body is refused with 413, a slower one with 408.
        """
        self._receive = receive
        self._send = send
        self._summary = summary
        self._bytes_left = settings.max_body_bytes
        self._seconds_left = settings.request_body_timeout_seconds
        self._expects_continue = b"expect" in headers  # the client waits for `100 Continue`
        self._early: Message | None = None  # received before the application called receive()
        self._is_complete = False
        self._is_response_sent = False

    async def receive(self) -> Message:
        """Receive for the application.

        Raises:
            HTTPException: 408 or 413. FastAPI passes on no other type while it reads a body.
        """
        message, self._early = self._early, None
        if message is None and self._is_complete:
            return await self._receive()  # the disconnect, without a limit
        try:
            message = message or await self._receive_within(self._seconds_left)
        except TimeoutError:
            if self._summary.status:
                return {"type": "http.disconnect"}
            raise HTTPException(408) from None
        self._bytes_left -= len(message.get("body", b""))
        if self._bytes_left < 0:
            raise HTTPException(413)
        return message

    async def send(self, message: Message) -> None:
        """Send for the application. finish() sends the end of the response."""
        if not self._is_complete:
            if message["type"] == "http.response.start":
                if not self._expects_continue:
                    with suppress(TimeoutError):  # most bodies have arrived already
                        self._early = self._early or await self._receive_within(0)
                if not self._is_complete:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            elif not message.get("more_body"):
                self._is_response_sent = True
                message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Drop the rest of the body, if the response came first, and end the response."""
        if self._is_response_sent:
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
