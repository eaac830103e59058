"""Limits of the request body, with applications that read it in different ways."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.checks import Health
from app.web.middleware import RequestMiddleware
from app.web.problems import install_error_handlers
from app.web.request_summary import RequestHooks
from conftest import settings_for

TIMEOUT_SECONDS = 0.05
LONGER_SECONDS = 0.2
BODY = b"x" * 10


class Client:
    """A client of an ASGI application that sends these parts of a body."""

    def __init__(
        self, *parts: bytes, ends: bool = True, headers: dict[str, str] | None = None
    ) -> None:
        self._parts = list(parts)
        self._ends = ends
        self._headers = {"host": "a", "content-length": "10"} | (headers or {})
        self.is_complete = asyncio.Event()
        self.received: list[Message] = []
        self.receives_after_start: list[bool] = []

    async def send(self, app: ASGIApp, path: str = "/") -> None:
        settings = settings_for(
            "postgresql:///of-no-test",
            request_body_timeout_seconds=TIMEOUT_SECONDS,
            max_body_bytes=100,
        )
        middleware = RequestMiddleware(
            app, settings=settings, health=Health(), hooks=RequestHooks()
        )
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in self._headers.items()],
        }
        async with asyncio.timeout(20):
            await middleware(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        self.receives_after_start.append(bool(self.received))
        if self._parts:
            body = self._parts.pop(0)
            more = bool(self._parts) or not self._ends
            return {"type": "http.request", "body": body, "more_body": more}
        await self.is_complete.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.received.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.is_complete.set()

    @property
    def status(self) -> int:
        return int(self.received[0]["status"])

    @property
    def keeps_connection(self) -> bool:
        return (b"connection", b"close") not in self.received[0]["headers"]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.received[1:])


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.post("/slow")
    async def read_slowly(request: Request) -> int:
        parts = 0
        async for _ in request.stream():
            await asyncio.sleep(LONGER_SECONDS)
            parts += 1
        return parts

    @app.post("/unread-stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"."
                await asyncio.sleep(0.001)

        return StreamingResponse(chunks())

    return app


async def test_body_that_does_not_arrive_in_time_returns_408(app: FastAPI) -> None:
    for parts in ([], [b"xx"]):
        client = Client(*parts, ends=False)
        await client.send(app)
        assert client.status == 408
        assert b'"title":"Request Timeout"' in client.body
        assert (b"content-type", b"application/problem+json") in client.received[0]["headers"]
        assert not client.keeps_connection


async def test_slow_application_does_not_time_out_the_body(app: FastAPI) -> None:
    client = Client(b"xx", b"xx", b"xxxxxx")
    await client.send(app, "/slow")
    assert (client.status, client.body) == (200, b"4")  # the end of the body is an empty part
    assert client.keeps_connection


async def test_wait_for_the_disconnect_has_no_timeout() -> None:
    async def wait(_scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == BODY
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(LONGER_SECONDS)
        assert not waiting.done()
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        assert (await waiting)["type"] == "http.disconnect"

    client = Client(BODY)
    await client.send(wait)
    assert client.status == 204


async def test_unread_body_that_has_arrived_keeps_connection(app: FastAPI) -> None:
    client = Client(BODY)
    await client.send(app, "/nowhere")
    assert client.status == 404
    assert client.keeps_connection
    assert client.is_complete.is_set()


@pytest.mark.parametrize(("length", "status"), [("10", 404), ("101", 413)])
async def test_unread_body_that_does_not_arrive_closes_the_connection(
    app: FastAPI, length: str, status: int
) -> None:
    client = Client(b"xx", ends=False, headers={"content-length": length})
    await client.send(app, "/nowhere")
    assert client.status == status
    assert not client.keeps_connection
    *_, content, end = client.received
    assert content["body"].startswith(b"{")
    assert end == {"type": "http.response.body"}


async def test_refused_request_with_expect_100_continue_gets_no_continue(app: FastAPI) -> None:
    client = Client(BODY, headers={"expect": "100-continue"})
    await client.send(app, "/nowhere")
    assert client.status == 404
    assert client.receives_after_start == [True]


async def test_application_that_has_begun_its_response_reads_the_whole_body() -> None:
    async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    client = Client(b"ab", b"cd", b"ef")
    await client.send(echo)
    assert client.body == b"abcdef"


async def test_streamed_response_ends_when_the_body_does_not_arrive(app: FastAPI) -> None:
    client = Client(b"xx", ends=False)
    await client.send(app, "/unread-stream")
    assert client.status == 200
    assert not client.is_complete.is_set()
