"""A client that calls too often is told so; a Redis that is away costs nobody an answer."""

import asyncio
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from redis.asyncio import Redis

from app.cache.circuit_breaker import PAUSE_SECONDS, WAIT_SECONDS
from app.cache.read_through import open_cache
from app.db.session import open_database
from app.errors import NotFound
from app.main import create_app
from app.rate_limit.client import client_of
from app.rate_limit.dependencies import Limit
from app.rate_limit.limiter import Limiter, RateLimitStatus
from app.settings import Settings, SettingsError, load_settings
from app.web.checks import Health
from conftest import Lines, running, settings_for
from own_valkey import Valkey, own_valkey
from processes import APP, Service, environment

pytestmark = pytest.mark.skipif(
    "TEST_REDIS_URL" not in os.environ, reason="there is no embedded Valkey here: set REDIS_URL"
)


@pytest.fixture(autouse=True)
def generous_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a working Redis time to answer on a busy machine."""
    for limit in ("WAIT_SECONDS", "LATE_SECONDS"):
        monkeypatch.setattr(f"app.cache.circuit_breaker.{limit}", 20)


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """With nothing counted yet."""
    with own_valkey() as valkey:
        yield valkey


@pytest.fixture
def settings(database_url: str, valkey: Valkey) -> Settings:
    return settings_for(
        database_url,
        redis_url=valkey.url,
        rate_limit="3/minute",
        cors_origins="https://app.example.com",
    )


def app_with_words(settings: Settings) -> FastAPI:
    """The service with a route of no limit of its own, and one with."""
    app = create_app(settings)

    @app.get("/words")
    async def words() -> str:
        return "many"

    @app.get("/words/{word}", dependencies=[Limit("1/hour")])
    async def word(word: str) -> str:
        if word == "none":
            raise NotFound
        return word

    return app


def as_client(client: AsyncClient, address: str) -> AsyncClient:
    """The same application, called from another address."""
    transport = client._transport  # noqa: SLF001 - httpx has no other way to it
    assert isinstance(transport, ASGITransport)
    return AsyncClient(
        transport=ASGITransport(transport.app, client=(address, 1)), base_url=client.base_url
    )


async def test_every_answer_says_what_is_left(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        answers = [await client.get(path) for path in ("/words", "/nowhere")]
    assert [a.headers["RateLimit-Policy"] for a in answers] == ['"default";q=3;w=60'] * 2
    left = [re.fullmatch(r'"default";r=(\d);t=(\d+)', a.headers["RateLimit"]) for a in answers]
    assert [match and match[1] for match in left] == ["2", "1"]
    assert all(match and 1 <= int(match[2]) <= 60 for match in left)


async def test_one_request_too_many_is_a_problem_that_says_when_to_try_again(
    settings: Settings,
) -> None:
    async with running(app_with_words(settings)) as client:
        headers = {"Origin": "https://app.example.com", "X-Request-Id": "of-this-test"}
        answers = [await client.get("/words", headers=headers) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    refused = answers[-1]
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["request_id"] == "of-this-test"
    assert refused.json()["type"] == "urn:problem:too-many-requests"
    assert refused.headers["RateLimit"] == f'"default";r=0;t={refused.headers["Retry-After"]}'
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/words/one", "/words/{word}"),
        ("DELETE", "/words/one", "/words/{word}"),
        ("GET", "/nowhere", None),
    ],
)
async def test_a_request_too_many_is_logged_with_the_route_that_it_did_not_reach(
    settings: Settings, lines: Lines, method: str, path: str, route: str | None
) -> None:
    async with running(app_with_words(settings)) as client:
        for _ in range(3):
            await client.get("/words")
        assert (await client.request(method, path)).status_code == 429
    (line,) = [line for line in lines() if line.get("status") == 429]
    assert line["route"] == route


async def test_head_counts_towards_the_limits_of_get(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        answers = [await client.request(method, "/words/a") for method in ("HEAD", "GET", "HEAD")]
        refused = await client.head("/words")
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert refused.status_code == 429
    assert refused.headers["Retry-After"]


@pytest.fixture
async def limiter(settings: Settings) -> AsyncIterator[Limiter]:
    async with (
        open_database(settings) as database,
        open_cache(settings, database, Health().add) as cache,
    ):
        yield Limiter(settings, cache.breaker)


async def test_when_the_window_is_over_counting_begins_anew(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, now = [], time.time()
    status = await limiter.count("default", limiter.default, "192.0.2.1")
    assert status is not None
    for later in (0, status.seconds_left - 2, status.seconds_left):
        monkeypatch.setattr("app.rate_limit.limiter.time.time", lambda later=later: now + later)
        status = await limiter.count("default", limiter.default, "192.0.2.1")
        assert status is not None
        counts.append(status.count)
    assert counts == [2, 3, 1]


async def test_a_crowd_waits_for_a_frozen_redis_together(
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

        while await count() is None:  # this machine is busy
            await asyncio.sleep(0.1)
        valkey.freeze()
        started = time.monotonic()
        assert await asyncio.gather(*(count() for _ in range(256))) == [None] * 256
        # One after the other they would wait sixteen times: the pool has sixteen connections.
        assert time.monotonic() - started < 4 * WAIT_SECONDS


async def test_each_client_has_its_own_count(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        for _ in range(4):
            await client.get("/words")
        async with as_client(client, "203.0.113.7") as other:
            assert (await other.get("/words")).status_code == 200


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
def test_an_ipv6_client_is_its_network(one: str, other: str, *, same: bool) -> None:
    clients = {client_of({"client": (address, 1)}) for address in (one, other)}
    assert (len(clients) == 1) == same


async def test_a_route_may_have_a_limit_of_its_own_for_all_that_its_template_matches(
    database_url: str, valkey: Valkey
) -> None:
    settings = settings_for(database_url, redis_url=valkey.url, rate_limit="9/minute")
    async with running(app_with_words(settings)) as client:
        first, second = await client.get("/words/none"), await client.get("/words/two")
        elsewhere = await client.get("/words")
        async with as_client(client, "203.0.113.7") as other:
            assert (await other.get("/words/one")).status_code == 200
    assert (first.status_code, second.status_code, elsewhere.status_code) == (404, 429, 200)
    for answer in (first, second):
        assert answer.headers.get_list("RateLimit-Policy") == [
            '"default";q=9;w=60',
            '"GET /words/{word}";q=1;w=3600',
        ]
        assert answer.headers.get_list("RateLimit")[1].startswith('"GET /words/{word}";r=0;t=')
    assert int(second.headers["Retry-After"]) > 60 - 1


def test_a_limit_that_cannot_be_understood_is_an_error_at_import() -> None:
    with pytest.raises(ValueError, match="couldn't parse"):
        Limit("often")


async def test_probes_are_not_counted(settings: Settings) -> None:
    async with running(app_with_words(settings)) as client:
        for _ in range(5):
            live = await client.get("/health/live")
        assert live.status_code == 200
        assert "RateLimit" not in live.headers
        assert (await client.get("/words")).headers["RateLimit"].startswith('"default";r=2')


async def test_replicas_count_together_in_one_round_trip_a_request(
    settings: Settings, valkey: Valkey
) -> None:
    async with (
        running(app_with_words(settings)) as one,
        running(app_with_words(settings)) as other,
        Redis.from_url(valkey.url) as redis,
    ):
        await one.get("/words")
        await other.get("/words")  # by now the script is known
        before = await redis.info("commandstats")
        assert (await one.get("/words")).headers["RateLimit"].startswith('"default";r=0')
        assert (await other.get("/words")).status_code == 429
        after = await redis.info("commandstats")
    # what the script itself does, and INFO
    inside = {"cmdstat_incr", "cmdstat_expire", "cmdstat_info"}
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert {n: c for n, c in calls.items() if c and n not in inside} == {"cmdstat_evalsha": 2}


async def test_the_problem_is_in_the_openapi_document(settings: Settings) -> None:
    async with running(create_app(settings)) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    answer = paths["/health/ready"]["get"]["responses"]["429"]
    assert list(answer["content"]) == ["application/problem+json"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [(None, "REDIS_URL is not set"), ("redis://127.0.0.1:1/0", "Redis is unavailable")],
)
async def test_without_redis_everything_passes_and_one_line_says_so(
    database_url: str, lines: Lines, url: str | None, reason: str
) -> None:
    settings = settings_for(database_url, redis_url=url, rate_limit="1/minute")
    async with running(app_with_words(settings)) as client:
        answers = [await client.get(path) for path in ("/words", "/words/one") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert not any("RateLimit" in answer.headers for answer in answers)
    warnings = [line["message"] for line in lines() if line["level"] == "warn"]
    assert [w for w in warnings if "rate" in w] == [f"rate limiting is disabled: {reason}"]


@pytest.mark.parametrize("limit", ["often", "0/minute", "10/fortnight", "10", "-1/second"])
def test_a_limit_that_is_none_is_one_line_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("RATE_LIMIT", limit)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    (problem,) = caught.value.problems
    assert problem.startswith("RATE_LIMIT: it must be a number and second, minute, hour or day")


def test_a_redis_that_is_frozen_or_gone_is_logged_once_and_slows_one_request_a_second_down(
    database_url: str, valkey: Valkey
) -> None:
    env = environment(database_url, REDIS_URL=valkey.url, RATE_LIMIT="1000/minute")
    lost, found = (
        "rate limiting is disabled: Redis is unavailable",
        "rate limiting is enabled again",
    )
    with Service([*APP, "serve"], env) as service:
        url = service.wait_until_ready()
        with httpx.Client(base_url=url) as client:
            assert client.get("/openapi.json").headers["RateLimit"]
            valkey.freeze()
            started = time.monotonic()
            for _ in range(20):
                assert client.get("/openapi.json").status_code == 200
            waited = time.monotonic() - started
            time.sleep(PAUSE_SECONDS)
            client.get("/openapi.json")
            assert service.messages().count(lost) == 1
            valkey.thaw()
            time.sleep(PAUSE_SECONDS)
            assert client.get("/openapi.json").headers["RateLimit"]
            assert service.messages().count(found) == 1
            valkey.stop()
            for _ in range(20):
                assert client.get("/openapi.json").status_code == 200
            assert service.messages().count(lost) == 2
        assert service.stderr == ""
    assert waited < 20 * WAIT_SECONDS / 4


@pytest.mark.parametrize(
    ("trusted", "expected"), [("127.0.0.1", [200, 200, 429]), ("", [200, 429, 429])]
)
def test_behind_a_trusted_proxy_the_client_is_the_one_that_the_proxy_saw(
    database_url: str, valkey: Valkey, trusted: str, expected: list[int]
) -> None:
    env = environment(
        database_url,
        REDIS_URL=valkey.url,
        RATE_LIMIT="1/hour",
        FORWARDED_ALLOW_IPS=trusted or "192.0.2.1",
    )
    with Service([*APP, "serve"], env) as service:
        port = service.wait_until_ready().rpartition(":")[2]
        # The last one says that it is another; the proxy says behind it who it is.
        clients = ("203.0.113.1", "203.0.113.2", "203.0.113.3, 203.0.113.2")
        answers = [
            httpx.get(
                f"http://127.0.0.1:{port}/openapi.json",
                headers={"X-Forwarded-For": client, "X-Request-Id": uuid.uuid4().hex},
            )
            for client in clients
        ]
    assert [answer.status_code for answer in answers] == expected
