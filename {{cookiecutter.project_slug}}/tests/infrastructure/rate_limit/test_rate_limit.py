"""A client over its limit gets 429. Without Redis, no request is limited."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from redis.asyncio import Redis

from app.cache.circuit_breaker import WAIT_SECONDS
from app.cache.read_through import open_cache
from app.db.session import open_database
from app.errors import NotFound
from app.main import create_app
from app.rate_limit.dependencies import Limit
from app.rate_limit.limiter import Limiter, RateLimitStatus
from app.settings import Settings, SettingsError, load_settings
from app.web.checks import Health
from app.web.client import client_of
from conftest import Lines, running, settings_for
from valkey_server import Valkey

NOW = 1_000_000.0
pytestmark = pytest.mark.usefixtures("redis_url")


def set_clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr("app.rate_limit.limiter.time", SimpleNamespace(time=lambda: now))


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of the limiter: no window ends during a test."""
    set_clock(monkeypatch, NOW)


@pytest.fixture(autouse=True)
def generous_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a working Redis time to answer on a busy machine."""
    for limit in ("WAIT_SECONDS", "LATE_SECONDS"):
        monkeypatch.setattr(f"app.cache.circuit_breaker.{limit}", 20)


@pytest.fixture
def settings(database_url: str, valkey: Valkey) -> Settings:
    return settings_for(
        database_url,
        redis_url=valkey.url,
        rate_limit="3/minute",
        cors_origins="https://app.example.com",
    )


def app_with_words(settings: Settings) -> FastAPI:
    """Return the service with one route without, and one route with its own limit."""
    app = create_app(settings)

    @app.get("/_test/words")
    async def words() -> str:
        return "many"

    @app.get("/_test/words/{word}", dependencies=[Limit("1/hour")])
    async def word(word: str) -> str:
        if word == "none":
            raise NotFound
        return word

    return app


def as_client(client: AsyncClient, address: str) -> AsyncClient:
    """Return a client of the same application with another address."""
    transport = client._transport  # noqa: SLF001 - httpx offers no public access
    assert isinstance(transport, ASGITransport)
    return AsyncClient(
        transport=ASGITransport(transport.app, client=(address, 1)), base_url=client.base_url
    )


async def test_every_response_carries_the_rate_limit_headers(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        responses = [await client.get(path) for path in ("/_test/words", "/_test/nowhere")]
    assert [r.headers["RateLimit-Policy"] for r in responses] == ['"default";q=3;w=60'] * 2
    limits = [re.fullmatch(r'"default";r=(\d);t=(\d+)', r.headers["RateLimit"]) for r in responses]
    assert [match and match[1] for match in limits] == ["2", "1"]
    assert all(match and 1 <= int(match[2]) <= 60 for match in limits)


async def test_request_over_the_limit_returns_429_with_retry_after(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        headers = {"Origin": "https://app.example.com", "X-Request-Id": "of-this-test"}
        responses = [await client.get("/_test/words", headers=headers) for _ in range(4)]
    assert [r.status_code for r in responses] == [200, 200, 200, 429]
    refused = responses[-1]
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["request_id"] == "of-this-test"
    assert refused.json()["type"] == "urn:problem:too-many-requests"
    assert refused.headers["RateLimit"] == f'"default";r=0;t={refused.headers["Retry-After"]}'
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/_test/words/one", "/_test/words/{word}"),
        ("DELETE", "/_test/words/one", "/_test/words/{word}"),
        ("GET", "/_test/nowhere", None),
    ],
)
async def test_request_over_the_limit_is_logged_with_its_route(
    settings: Settings, lines: Lines, method: str, path: str, route: str | None
) -> None:
    async with running(app_with_words(settings)) as client:
        for _ in range(3):
            await client.get("/_test/words")
        assert (await client.request(method, path)).status_code == 429
    (line,) = [line for line in lines() if line.get("status") == 429]
    assert line["route"] == route


async def test_head_request_counts_towards_the_limits_of_get(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        responses = [
            await client.request(method, "/_test/words/a") for method in ("HEAD", "GET", "HEAD")
        ]
        refused = await client.head("/_test/words")
    assert [response.status_code for response in responses] == [200, 429, 429]
    assert refused.status_code == 429
    assert refused.headers["Retry-After"]


@pytest.fixture
async def limiter(settings: Settings) -> AsyncIterator[Limiter]:
    async with (
        open_database(settings) as database,
        open_cache(settings, database, Health().add) as cache,
    ):
        yield Limiter(settings, cache.breaker)


async def test_count_after_the_window_restarts_at_one(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    status = await limiter.count("default", limiter.default, "192.0.2.1")
    assert status is not None
    for later in (0, status.seconds_left - 2, status.seconds_left):
        set_clock(monkeypatch, NOW + later)
        status = await limiter.count("default", limiter.default, "192.0.2.1")
        assert status is not None
        counts.append(status.count)
    assert counts == [2, 3, 1]


async def test_concurrent_requests_on_a_frozen_redis_share_one_wait(
    settings: Settings, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.circuit_breaker.WAIT_SECONDS", WAIT_SECONDS)
    async with (
        open_database(settings) as database,
        open_cache(settings, database, Health().add) as cache,
    ):
        limiter = Limiter(settings, cache.breaker)

        async def count() -> RateLimitStatus | None:
            return await limiter.count("default", limiter.default, "192.0.2.1")

        while await count() is None:  # the machine is busy
            await asyncio.sleep(0.1)
        valkey.freeze()
        started = time.monotonic()
        assert await asyncio.gather(*(count() for _ in range(256))) == [None] * 256
        # The pool has 16 connections: one after the other, the requests would wait 16 times.
        assert time.monotonic() - started < 16 * WAIT_SECONDS


async def test_second_client_has_its_own_count(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        for _ in range(4):
            await client.get("/_test/words")
        async with as_client(client, "203.0.113.7") as other:
            assert (await other.get("/_test/words")).status_code == 200


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("/run/app.sock", "192.0.2.1", False),
    ],
)
def test_ipv6_client_is_identified_by_its_network(one: str, other: str, *, same: bool) -> None:
    clients = {client_of({"client": (address, 1)}) for address in (one, other)}
    assert (len(clients) == 1) == same


async def test_route_limit_counts_every_path_of_the_template(
    database_url: str, valkey: Valkey
) -> None:
    settings = settings_for(database_url, redis_url=valkey.url, rate_limit="9/minute")
    async with running(app_with_words(settings)) as client:
        first, second = await client.get("/_test/words/none"), await client.get("/_test/words/two")
        other_route = await client.get("/_test/words")
        async with as_client(client, "203.0.113.7") as other:
            assert (await other.get("/_test/words/one")).status_code == 200
    assert (first.status_code, second.status_code, other_route.status_code) == (404, 429, 200)
    for response in (first, second):
        assert response.headers.get_list("RateLimit-Policy") == [
            '"default";q=9;w=60',
            '"GET /_test/words/{word}";q=1;w=3600',
        ]
        assert response.headers.get_list("RateLimit")[1].startswith(
            '"GET /_test/words/{word}";r=0;t='
        )
    assert int(second.headers["Retry-After"]) > 60 - 1


def test_invalid_route_limit_raises_at_import() -> None:
    with pytest.raises(ValueError, match="couldn't parse"):
        Limit("often")


async def test_probe_is_not_counted(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        for _ in range(5):
            live = await client.get("/health/live")
        assert live.status_code == 200
        assert "RateLimit" not in live.headers
        assert (await client.get("/_test/words")).headers["RateLimit"].startswith('"default";r=2')


async def test_replicas_share_one_count_in_one_round_trip_a_request(
    settings: Settings, valkey: Valkey
) -> None:
    async with (
        running(app_with_words(settings)) as first,
        running(app_with_words(settings)) as second,
        Redis.from_url(valkey.url) as redis,
    ):
        await first.get("/_test/words")
        await second.get("/_test/words")  # both replicas have loaded the script
        before = await redis.info("commandstats")
        assert (await first.get("/_test/words")).headers["RateLimit"].startswith('"default";r=0')
        assert (await second.get("/_test/words")).status_code == 429
        after = await redis.info("commandstats")
    # the commands of the script, and INFO
    uncounted = {"cmdstat_incr", "cmdstat_expire", "cmdstat_info"}
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert {n: c for n, c in calls.items() if c and n not in uncounted} == {"cmdstat_evalsha": 2}


async def test_openapi_document_describes_the_429_problem(settings: Settings) -> None:
    async with running(create_app(settings)) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    response = paths["/health/ready"]["get"]["responses"]["429"]
    assert list(response["content"]) == ["application/problem+json"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [(None, "REDIS_URL is not set"), ("redis://127.0.0.1:1/0", "Redis is unavailable")],
)
async def test_requests_without_redis_pass_and_are_logged_once(
    database_url: str, lines: Lines, url: str | None, reason: str
) -> None:
    settings = settings_for(database_url, redis_url=url, rate_limit="1/minute")
    async with running(app_with_words(settings)) as client:
        responses = [
            await client.get(path)
            for path in ("/_test/words", "/_test/words/one")
            for _ in range(3)
        ]
    assert [response.status_code for response in responses] == [200] * 6
    assert not any("RateLimit" in response.headers for response in responses)
    warnings = [line["message"] for line in lines() if line["level"] == "warn"]
    assert [w for w in warnings if "rate" in w] == [f"rate limiting is disabled: {reason}"]


@pytest.mark.parametrize("limit", ["often", "0/minute", "10/fortnight", "10", "-1/second"])
def test_invalid_rate_limit_setting_is_refused_with_one_line(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("RATE_LIMIT", limit)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert problem.startswith("RATE_LIMIT: it must be a number and second, minute, hour or day")
