"""The cache fails no request when Redis is unavailable, and returns no outdated value."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from redis.asyncio import Redis

from app.cache.circuit_breaker import PAUSE_SECONDS, WAIT_SECONDS
from app.cache.read_through import TTL_SECONDS, Cache, open_cache
from app.circuit import Circuit
from app.db.session import open_database
from app.service_info import SERVICE_NAME
from app.settings import Settings
from app.web.checks import Health
from cached_words import Word, app_with_words, set_generous_timeouts
from conftest import Lines, running, settings_for
from valkey_server import start_valkey

pytestmark = pytest.mark.usefixtures("redis_url")


@pytest.fixture(autouse=True)
def generous_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    set_generous_timeouts(monkeypatch)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


@asynccontextmanager
async def open_test_cache(settings: Settings, health: Health) -> AsyncIterator[Cache]:
    async with (
        open_database(settings) as database,
        open_cache(settings, database, health.add) as cache,
    ):
        yield cache


@pytest.fixture
async def cache(database_url: str) -> AsyncIterator[Cache]:
    async with open_test_cache(settings_for(database_url), Health()) as cache:
        yield cache


@pytest.fixture
def key() -> str:
    return f"_test:{uuid.uuid4()}"


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return app_with_words(settings)


async def get(cache: Cache, key: str, loaded: str) -> str:
    """Return the cached text, or store and return the loaded one."""

    async def load() -> Word:
        return Word(text=loaded)

    return (await cache.get_or_load(key, Word, load)).text


async def test_cached_value_is_not_loaded_again(app: FastAPI, key: str, redis: Redis) -> None:
    async with running(app) as client:
        words = [(await client.get(f"/_test/words/{key}")).json() for _ in range(3)]
    assert words == [{"text": "none yet"}] * 3
    assert app.state.loads == 1
    assert 0 < await redis.ttl(f"{SERVICE_NAME}:_test:word:{key}") <= TTL_SECONDS


async def test_change_is_seen_by_the_next_read(app: FastAPI, key: str) -> None:
    async with running(app) as client:
        await client.get(f"/_test/words/{key}")
        await client.put(f"/_test/words/{key}", params={"text": "new"})
        assert (await client.get(f"/_test/words/{key}")).json() == {"text": "new"}


async def test_rolled_back_change_invalidates_nothing(app: FastAPI, key: str, redis: Redis) -> None:
    async with running(app) as client:
        await client.get(f"/_test/words/{key}")
        refused = await client.put(f"/_test/words/{key}", params={"text": "refused"})
    assert refused.status_code == 409
    assert await redis.get(f"{SERVICE_NAME}:_test:word:{key}")


async def test_slow_load_does_not_store_an_outdated_value(cache: Cache, key: str) -> None:
    async def load_during_a_change() -> Word:
        await cache.invalidate(key)
        return Word(text="old")

    assert (await cache.get_or_load(key, Word, load_during_a_change)).text == "old"
    assert await get(cache, key, "new") == "new"


async def test_concurrent_reads_wait_for_a_connection(cache: Cache, key: str) -> None:
    await get(cache, key, "value")
    found = await asyncio.gather(*(get(cache, key, "loaded") for _ in range(64)))
    assert found == ["value"] * 64


async def test_value_with_another_schema_is_loaded_again(
    app: FastAPI, key: str, redis: Redis
) -> None:
    await redis.set(f"{SERVICE_NAME}:_test:word:{key}", '{"of another": "version"}', ex=60)
    async with running(app) as client:
        assert (await client.get(f"/_test/words/{key}")).json() == {"text": "none yet"}


async def test_invalidation_during_the_pause_after_a_failure_is_sent(
    cache: Cache, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await get(cache, key, "old")
    after_a_failure = Circuit(max_failures=1, pause_seconds=60)
    after_a_failure.record_failure()
    monkeypatch.setattr(cache.breaker, "_circuit", after_a_failure)
    assert await get(cache, key, "loaded") == "loaded"
    await cache.invalidate(key)
    assert await get(cache, key, "new") == "new"


def test_invalid_redis_url_is_refused(database_url: str) -> None:
    with pytest.raises(ValidationError, match="redis:// or rediss://"):
        settings_for(database_url, redis_url="localhost:6379")


async def test_cache_without_redis_url_loads_every_time(database_url: str, key: str) -> None:
    settings = settings_for(database_url, redis_url=None)
    health = Health()
    async with open_test_cache(settings, health) as cache:
        assert await get(cache, key, "first") == "first"
        assert await get(cache, key, "second") == "second"
        assert await health.components() == {}


async def test_requests_while_redis_is_down_succeed(database_url: str, key: str) -> None:
    app = app_with_words(settings_for(database_url, redis_url="redis://127.0.0.1:1/0"))
    async with running(app) as client:
        for _ in range(3):
            assert (await client.get(f"/_test/words/{key}")).status_code == 200
        assert (await client.put(f"/_test/words/{key}", params={"text": "new"})).status_code == 200
        assert (await client.get(f"/_test/words/{key}")).json() == {"text": "new"}
        ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["components"]["redis"] == "failed"


async def test_frozen_redis_delays_one_request_a_second(
    database_url: str, key: str, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr("app.cache.circuit_breaker.WAIT_SECONDS", WAIT_SECONDS)
    with start_valkey() as valkey:
        app = app_with_words(settings_for(database_url, redis_url=valkey.url))
        async with running(app) as client:
            await client.get(f"/_test/words/{key}")
            valkey.freeze()
            lines()
            started = time.monotonic()
            for _ in range(20):
                assert (await client.get(f"/_test/words/{key}")).status_code == 200
            seconds = time.monotonic() - started
            waits = [line["message"] for line in lines()].count("redis unavailable")
            assert 1 <= waits <= 1 + seconds / PAUSE_SECONDS
            valkey.thaw()
            set_generous_timeouts(monkeypatch)
            await asyncio.sleep(PAUSE_SECONDS + 0.1)  # until the end of the pause
            loads = app.state.loads
            await client.get(f"/_test/words/{key}")
            await client.get(f"/_test/words/{key}")
    assert app.state.loads <= loads + 1
