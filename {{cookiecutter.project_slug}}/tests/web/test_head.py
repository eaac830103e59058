"""HEAD returns the response to GET without its body (RFC 9110, 9.3.2)."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from httpx import AsyncClient
from starlette.types import Message

from app.main import create_app
from app.settings import Settings
from conftest import Lines, running, settings_for
from processes import APP, Service, environment

ORIGIN = "https://app.example.com"
# The length of these bodies changes with each request.
UNSTABLE = {"/health", "/health/detailed"}
UNSTABLE |= {"/metrics"}  # option: metrics


@pytest.fixture
def app(database_url: str) -> FastAPI:
    app = create_app(settings_for(database_url, cors_origins=ORIGIN))

    @app.get("/things/{thing_id}")
    async def thing(thing_id: int) -> str:
        return f"{thing_id}" * 5000

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 100

        return StreamingResponse(chunks())

    @app.get("/boom")
    async def boom() -> str:
        raise RuntimeError

    @app.post("/post-only")
    async def post_only() -> None:
        return None

    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with running(app) as client:
        yield client


def get_paths(app: FastAPI) -> set[str]:
    """Return a path of every route with GET, and an identifier for each parameter."""
    routes = [r for r in app.routes if "GET" in (getattr(r, "methods", None) or ())]
    paths = {str(getattr(route, "path", "")) for route in routes} | UNSTABLE
    paths |= {path for path, operations in app.openapi()["paths"].items() if "get" in operations}
    unknown = "019ac0de-0000-7000-8000-000000000000"
    return {"/".join(unknown if p[:1] == "{" else p for p in path.split("/")) for path in paths}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_head_on_every_route_returns_status_and_headers_of_get(
    app: FastAPI, client: AsyncClient, encoding: str
) -> None:
    headers = {"Accept-Encoding": encoding, "Origin": ORIGIN, "X-Request-Id": "of-this-test"}
    paths = get_paths(app) | {"/things/7", "/nowhere"}
    assert {"/health", "/health/live", "/docs", "/openapi.json", "/stream", "/boom"} <= paths
    for path in sorted(paths):
        changing = {"content-length"} if path in UNSTABLE else set()
        changing |= {"ratelimit"}  # option: rate_limit
        get, head = [await client.request(m, path, headers=headers) for m in ("GET", "HEAD")]
        assert head.status_code == get.status_code, path
        assert head.headers.keys() == get.headers.keys(), path
        for name in get.headers.keys() - changing:
            assert head.headers[name] == get.headers[name], (path, name)


@pytest.mark.parametrize(
    "path", ["/things/7", "/stream", "/boom", "/nowhere", "/post-only", "/docs"]
)
async def test_head_sends_no_body(app: FastAPI, path: str) -> None:
    sent: list[Message] = []
    is_complete = asyncio.Event()

    async def receive() -> Message:
        await is_complete.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            is_complete.set()

    async with app.router.lifespan_context(app) as state:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "HEAD",
            "scheme": "http",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"testserver")],
            "client": ("127.0.0.1", 1),
            "state": dict(state or {}),
        }
        await app(scope, receive, send)
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert rest == [{"type": "http.response.body"}]
    assert scope["method"] == "HEAD"


async def test_head_on_a_route_without_get_returns_405(client: AsyncClient) -> None:
    response = await client.head("/post-only")
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


async def test_allow_header_names_every_method_and_head_beside_get(
    client: AsyncClient, app: FastAPI
) -> None:
    @app.put("/things/{thing_id}")
    async def replace(thing_id: int) -> None:
        del thing_id

    for path, allowed in (("/things/7", "GET, HEAD, PUT"), ("/health/live", "GET, HEAD")):
        response = await client.request("DELETE", path)
        assert response.status_code == 405
        assert response.headers["Allow"] == allowed
        assert response.headers["Content-Type"] == "application/problem+json"


async def test_access_log_of_head_has_the_method_and_the_route(
    client: AsyncClient, lines: Lines
) -> None:
    await client.head("/things/7")
    (line,) = [line for line in lines() if line["message"] == "request"]
    assert (line["method"], line["route"]) == ("HEAD", "/things/{thing_id}")
    assert (line["status"], line["bytes"]) == (200, 0)


async def test_openapi_document_has_no_head_operation(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    assert not [path for path, operations in paths.items() if "head" in operations]


def test_connection_after_head_is_reused(database_url: str) -> None:
    with Service([*APP, "serve"], environment(database_url)) as service:
        port = int(service.wait_until_ready().rpartition(":")[2])
        request = "{} /health/live HTTP/1.1\r\nHost: a\r\n{}\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(request.format("HEAD", "").encode() * 2)
            client.sendall(request.format("GET", "Connection: close\r\n").encode())
            responses = client.makefile("rb").read()
    assert responses.count(b"HTTP/1.1 200 OK") == 3
    assert responses.count(b"content-length: 18") == 3
    assert responses.count(b'{"status":"alive"}') == 1
