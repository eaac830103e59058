import gzip
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from httpx import AsyncClient

from app.main import create_app
from app.settings import Settings
from app.web.cors import EXPOSED
from conftest import running, settings_for


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[AsyncClient]:
    settings = settings_for(
        database_url,
        allowed_hosts="api.example.com, *.example.org, Upper.example.net, [::1]",
        cors_origins="https://app.example.com",
        max_body_bytes=1000,
    )
    app = create_app(settings)

    @app.get("/_test/boom")
    async def boom() -> str:
        raise RuntimeError("secret detail")

    @app.get("/_test/large")
    async def large() -> str:
        return "x" * 5000

    @app.post("/_test/echo")
    async def echo(body: dict[str, str]) -> dict[str, str]:
        return body

    async with running(app, host="api.example.com") as client:
        yield client


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.com", 200),
        ("API.example.com:8443", 200),
        ("a.example.org", 200),
        ("upper.example.net", 200),
        ("[::1]:8000", 200),
        ("evil.com/.example.org", 400),
        ("evil.com#.example.org", 400),
        ("user@a.example.org", 400),
        ("example.org", 400),
        ("evil.com", 400),
        ("api.example.com.evil.com", 400),
        ("", 400),
    ],
)
async def test_request_with_an_untrusted_host_returns_400(
    client: AsyncClient, host: str, status: int
) -> None:
    response = await client.get("/_test/large", headers={"Host": host})
    assert response.status_code == status
    if status == 400:
        assert response.headers["Content-Type"] == "application/problem+json"


async def test_path_that_begins_like_a_probe_requires_a_trusted_host(client: AsyncClient) -> None:
    response = await client.get("/healthcare", headers={"Host": "evil.com"})
    assert response.status_code == 400


async def test_preflight_has_request_id_and_problem_like_every_request(client: AsyncClient) -> None:
    method = {"Access-Control-Request-Method": "PUT"}
    allowed = await client.options(
        "/_test/large", headers={"Origin": "https://app.example.com"} | method
    )
    assert allowed.status_code == 200
    assert allowed.headers["X-Request-Id"]
    refused = await client.options("/_test/large", headers={"Origin": "https://evil.com"} | method)
    assert refused.status_code == 400
    assert refused.headers["Content-Type"] == "application/problem+json"


async def test_refused_body_has_cors_headers(client: AsyncClient) -> None:
    headers = {"Origin": "https://app.example.com", "Content-Type": "application/json"}
    refused = await client.post("/_test/echo", content=b"x" * 2000, headers=headers)
    assert refused.status_code == 413
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


async def test_probe_with_any_host_returns_200(client: AsyncClient) -> None:
    response = await client.get("/health/live", headers={"Host": "healthcheck.platform.internal"})
    assert response.status_code == 200


async def test_request_id_of_the_client_is_kept(client: AsyncClient) -> None:
    response = await client.get("/_test/large", headers={"X-Request-Id": "abc-123"})
    assert response.headers["X-Request-Id"] == "abc-123"


@pytest.mark.parametrize("sent", ["", "x" * 129, 'a"b', "a b", "é", "ê", "º"])
async def test_unsafe_request_id_is_replaced(client: AsyncClient, sent: str) -> None:
    headers = [(b"x-request-id", sent.encode())]
    request_id = (await client.get("/_test/large", headers=headers)).headers["X-Request-Id"]
    assert request_id != sent
    assert len(request_id) == 32


async def test_every_response_has_security_headers(client: AsyncClient) -> None:
    for path in ("/_test/large", "/_test/nowhere", "/_test/boom"):
        headers = (await client.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "Strict-Transport-Security" not in headers


async def test_https_response_has_strict_transport_security(client: AsyncClient) -> None:
    client.base_url = "https://api.example.com"
    assert "max-age" in (await client.get("/_test/large")).headers["Strict-Transport-Security"]


async def test_cors_headers_are_sent_to_allowed_origins_only(client: AsyncClient) -> None:
    for path in ("/_test/large", "/_test/boom", "/_test/nowhere"):
        allowed = await client.get(path, headers={"Origin": "https://app.example.com"})
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example.com", path
        for name in EXPOSED:
            assert name in allowed.headers["Access-Control-Expose-Headers"]
    other = await client.get("/_test/large", headers={"Origin": "https://evil.com"})
    assert "Access-Control-Allow-Origin" not in other.headers


async def test_body_with_a_content_length_over_the_limit_returns_413(client: AsyncClient) -> None:
    response = await client.post("/_test/echo", json={"word": "x" * 1000})
    assert response.status_code == 413


@pytest.mark.parametrize(("length", "status"), [("9" * 5000, 413), ("0" * 5000 + "2", 422)])
async def test_content_length_of_many_digits_is_parsed(
    client: AsyncClient, length: str, status: int
) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": length}
    assert (await client.post("/_test/echo", content=b"[]", headers=headers)).status_code == status


async def test_chunked_body_over_the_limit_returns_413(client: AsyncClient) -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        yield b'{"word": "'
        for _ in range(count):
            yield b"x" * 100
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    assert (await client.post("/_test/echo", content=chunks(5), headers=headers)).status_code == 200
    assert (
        await client.post("/_test/echo", content=chunks(20), headers=headers)
    ).status_code == 413


async def test_large_response_is_compressed_when_the_client_accepts_gzip(
    client: AsyncClient,
) -> None:
    async with client.stream(
        "GET", "/_test/large", headers={"Accept-Encoding": "gzip"}
    ) as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert gzip.decompress(raw) == b'"' + b"x" * 5000 + b'"'
    small = await client.get("/health/live", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in small.headers


async def test_every_response_varies_on_encoding_and_origin(client: AsyncClient) -> None:
    for encoding in ("gzip", "identity"):
        response = await client.get("/_test/large", headers={"Accept-Encoding": encoding})
        assert "Accept-Encoding" in response.headers["Vary"]
        assert "Origin" in response.headers["Vary"]


class Page(HTMLParser):
    """The resources of a page, each with the directive of the policy that must allow it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.resources: set[tuple[str, str]] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in {"script", "style"}:
            self._add(f"{tag}-src", values.get("src"))
        elif tag == "link":
            kind = "style-src" if values["rel"] == "stylesheet" else "img-src"
            self._add(kind, values["href"])

    def _add(self, directive: str, url: str | None) -> None:
        origin = url and "://".join(urlsplit(url)[:2])
        self.resources.add((directive, origin or "'unsafe-inline'"))


async def test_content_security_policy_allows_resources_of_the_docs_pages(
    settings: Settings,
) -> None:
    app = create_app(settings)
    paths = (app.docs_url, app.swagger_ui_oauth2_redirect_url)
    async with running(app) as client:
        pages = {path: await client.get(str(path)) for path in paths}
        assert (await client.get("/redoc")).status_code == 404
    assert ("script-src", "https://cdn.jsdelivr.net") in Page(pages["/docs"].text).resources
    for path, page in pages.items():
        assert page.status_code == 200
        parts = [part.split() for part in page.headers["Content-Security-Policy"].split(";")]
        policy = {directive: sources for directive, *sources in parts}
        for directive, source in Page(page.text).resources:
            assert source in policy[directive], path
        assert policy["default-src"] == ["'self'"]  # /openapi.json, and requests from the page


async def test_docs_in_production_return_404(database_url: str) -> None:
    settings = settings_for(database_url, environment="production", allowed_hosts="testserver")
    async with running(create_app(settings)) as client:
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await client.get(path)).status_code == 404
