"""The three corrections of app/web/http_protocol.py, and uvicorn without them.

A test with "uvicorn" fails when uvicorn has corrected the fault itself. Then remove that correction
from the module, and the module after the last one.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.web.hosts import TARGET_URL
from app.web.http_protocol import MAX_HEAD_BYTES, HttpProtocol

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
TOO_LONG = b"X-Long: " + b"a" * 2 * MAX_HEAD_BYTES + b"\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"


async def show_scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the headers and the extensions of the request, after its body has arrived."""
    while (await receive()).get("more_body"):
        pass
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    extensions = {name: str(value) for name, value in scope.get("extensions", {}).items()}
    await JSONResponse({"headers": headers, "extensions": extensions})(scope, receive, send)


@asynccontextmanager
async def connect(http: Any) -> AsyncIterator[Connection]:
    """Run a server with this protocol, and connect to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(show_scope, http=http, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            async with asyncio.timeout(20):
                yield reader, writer
        finally:
            writer.close()
            server.should_exit = True
            await serving


async def read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(f[16:]) for f in head.split(b"\r\n") if f.startswith(b"content-length: "))
    body = await reader.readexactly(length)
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else {}


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost: a\r\n", CHUNKED])
async def test_uvicorn_accepts_a_head_and_trailers_of_any_size(start: bytes) -> None:
    async with connect("httptools") as (reader, writer):
        writer.write(start + TOO_LONG * 10 + b"\r\n")
        assert (await read_response(reader))[0] == 200


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost: a\r\n", CHUNKED])
async def test_head_or_trailers_over_the_limit_return_400(start: bytes) -> None:
    async with connect(HttpProtocol) as (reader, writer):
        for part in (start, b"X-A: " + b"a" * MAX_HEAD_BYTES, b"a"):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.2)  # the server reads each part alone, and leaves nothing unread
        assert (await read_response(reader))[0] == 400
        assert await reader.read() == b"", "the connection is closed"


@pytest.mark.parametrize(("http", "expected"), [("httptools", "evil"), (HttpProtocol, None)])
async def test_trailers_are_headers_in_uvicorn_only(http: Any, expected: str | None) -> None:
    async with connect(http) as (reader, writer):
        writer.write(CHUNKED + b"X-Trailer: evil\r\n\r\n")
        _, shown = await read_response(reader)
    assert shown["headers"].get("x-trailer") == expected


@pytest.mark.parametrize(
    ("http", "expected"),
    [("httptools", {}), (HttpProtocol, {TARGET_URL: str({"url": b"http://evil.com/a"})})],
)
async def test_host_of_an_absolute_target_is_lost_in_uvicorn_only(
    http: Any, expected: dict[str, str]
) -> None:
    async with connect(http) as (reader, writer):
        writer.write(b"GET http://evil.com/a HTTP/1.1\r\nHost: a\r\n\r\n")
        _, shown = await read_response(reader)
    assert shown == {"headers": {"host": "a"}, "extensions": expected}
