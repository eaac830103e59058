"""HEAD returns the response to GET without its body (RFC 9110, 9.3.2)."""

import asyncio
import re  # in the template only
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from httpx import AsyncClient
from starlette.types import Message

from app.main import create_app
from app.settings import Settings
from conftest import Lines, running, settings_for

ORIGIN = "https://app.example.com"
# The length of these bodies changes with each request.
UNSTABLE = {"/health", "/health/detailed"}
UNSTABLE |= {"/metrics"}  # option: metrics
PATHS = UNSTABLE | {"/health/live", "/health/ready", "/health/startup", "/docs", "/openapi.json"}
PATHS |= {"/_test/things/7", "/_test/stream", "/_test/boom", "/_test/nowhere"}
UNKNOWN = "019ac0de-0000-7000-8000-000000000000"  # in the template only


@pytest.fixture
def app(database_url: str) -> FastAPI:
    values: dict[str, object] = {"cors_origins": ORIGIN}
    values |= {"redis_url": None}  # a slow answer would remove headers  # option: redis
    app = create_app(settings_for(database_url, **values))

    @app.get("/_test/things/{thing_id}", include_in_schema=False)
    async def thing(thing_id: int) -> str:
        return f"{thing_id}" * 5000

    @app.get("/_test/stream", include_in_schema=False)
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 100

        return StreamingResponse(chunks())

    @app.get("/_test/boom", include_in_schema=False)
    async def boom() -> str:
        raise RuntimeError

    @app.post("/_test/post-only", include_in_schema=False)
    async def post_only() -> None:
        return None

    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with running(app) as client:
        yield client


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_head_returns_status_and_headers_of_get(client: AsyncClient, encoding: str) -> None:
    headers = {"Accept-Encoding": encoding, "Origin": ORIGIN, "X-Request-Id": "of-this-test"}
    paths = set(PATHS)
    found = (await client.get("/openapi.json")).json()["paths"]  # in the template only
    paths |= {re.sub(r"{\w+}", UNKNOWN, path) for path in found}  # in the template only
    for path in sorted(paths):
        changing = {"content-length"} if path in UNSTABLE else set()
        get, head = [await client.request(m, path, headers=headers) for m in ("GET", "HEAD")]
        assert head.status_code == get.status_code, path
        assert head.headers.keys() == get.headers.keys(), path
        for name in get.headers.keys() - changing:
            assert head.headers[name] == get.headers[name], (path, name)


@pytest.mark.parametrize(
    "path",
    [
        "/_test/things/7",
        "/_test/stream",
        "/_test/boom",
        "/_test/nowhere",
        "/_test/post-only",
        "/docs",
    ],
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
    response = await client.head("/_test/post-only")
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


async def test_allow_header_names_every_method_and_head_beside_get(
    client: AsyncClient, app: FastAPI
) -> None:
    @app.put("/_test/things/{thing_id}", include_in_schema=False)
    async def replace(thing_id: int) -> None:
        del thing_id

    for path, allowed in (("/_test/things/7", "GET, HEAD, PUT"), ("/health/live", "GET, HEAD")):
        response = await client.request("DELETE", path)
        assert response.status_code == 405
        assert response.headers["Allow"] == allowed
        assert response.headers["Content-Type"] == "application/problem+json"


async def test_access_log_of_head_has_the_method_and_the_route(
    client: AsyncClient, lines: Lines
) -> None:
    await client.head("/_test/things/7")
    (line,) = [line for line in lines() if line["message"] == "request"]
    assert (line["method"], line["route"]) == ("HEAD", "/_test/things/{thing_id}")
    assert (line["status"], line["bytes"]) == (200, 0)


async def test_openapi_document_has_no_head_operation(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    assert set(paths["/health/live"]) == {"get"}
