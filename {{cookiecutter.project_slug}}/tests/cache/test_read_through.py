"""Redis down means slower, never an error; what is cached is never older than the last change."""

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ValidationError
from redis.asyncio import Redis
from sqlalchemy import select

from app.cache.circuit_breaker import PAUSE_SECONDS, WAIT_SECONDS
from app.cache.read_through import TTL_SECONDS, Cache, invalidates, open_cache, read_through
from app.errors import Conflict
from app.main import create_app
from app.settings import SERVICE_NAME, Settings
from app.web.dependencies import WriteTransaction
from app.web.health import Health
from conftest import running, settings_for
from own_valkey import own_valkey

pytestmark = pytest.mark.skipif(
    "TEST_REDIS_URL" not in os.environ, reason="there is no embedded Valkey here: set REDIS_URL"
)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that is well has time to say so on a machine that is busy with other tests."""
    for limit in ("WAIT_SECONDS", "LATE_SECONDS", "POOL_WAIT_SECONDS"):
        monkeypatch.setattr(f"app.cache.circuit_breaker.{limit}", 20)


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Redis.from_url(os.environ["TEST_REDIS_URL"]) as redis:
        yield redis


@pytest.fixture
async def cache(database_url: str) -> AsyncIterator[Cache]:
    settings = settings_for(database_url)
    async with open_cache(settings, Health(settings)) as cache:
        yield cache


@pytest.fixture
def key() -> str:
    return f"test:{uuid.uuid4()}"


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return app_with_words(settings)


class Word(BaseModel):
    text: str


def app_with_words(settings: Settings) -> FastAPI:
    """The service with words that are found, cached, changed and counted."""
    app = create_app(settings)
    words: dict[str, str] = {}
    app.state.finds = 0

    @app.get("/words/{name}")
    @read_through("word:{name}", Word)
    async def find(name: str) -> Word:
        app.state.finds += 1
        return Word(text=words.get(name, "none yet"))

    @app.put("/words/{name}")
    @invalidates("word:{name}")
    async def change(name: str, text: str, transaction: WriteTransaction) -> None:
        await transaction.fetch(select(1))
        words[name] = text
        if text == "refused":
            raise Conflict

    return app


async def test_what_was_found_is_not_looked_for_again(app: FastAPI, key: str, redis: Redis) -> None:
    async with running(app) as client:
        answers = [(await client.get(f"/words/{key}")).json() for _ in range(3)]
    assert answers == [{"text": "none yet"}] * 3
    assert app.state.finds == 1
    assert 0 < await redis.ttl(f"{SERVICE_NAME}:word:{key}") <= TTL_SECONDS


async def test_a_change_is_seen_by_the_next_reader(app: FastAPI, key: str) -> None:
    async with running(app) as client:
        await client.get(f"/words/{key}")
        await client.put(f"/words/{key}", params={"text": "new"})
        assert (await client.get(f"/words/{key}")).json() == {"text": "new"}


async def test_a_change_that_fails_forgets_nothing(app: FastAPI, key: str, redis: Redis) -> None:
    async with running(app) as client:
        await client.get(f"/words/{key}")
        refused = await client.put(f"/words/{key}", params={"text": "refused"})
    assert refused.status_code == 409
    assert await redis.get(f"{SERVICE_NAME}:word:{key}")


async def test_a_slow_reader_cannot_bring_an_old_value_back(cache: Cache, key: str) -> None:
    assert await cache.get(key) is None  # a reader misses, and fetches the old row ...
    await cache.invalidate(key)  # ... the row is changed meanwhile ...
    await cache.put(key, b"old")  # ... and the reader stores what it has.
    assert await cache.get(key) is None


async def test_many_at_once_wait_for_a_connection_and_are_served(cache: Cache, key: str) -> None:
    await cache.put(key, b"value")
    assert await asyncio.gather(*(cache.get(key) for _ in range(64))) == [b"value"] * 64


async def test_a_value_of_another_shape_is_looked_up_again(
    app: FastAPI, key: str, redis: Redis
) -> None:
    await redis.set(f"{SERVICE_NAME}:word:{key}", '{"of another": "version"}', ex=60)
    async with running(app) as client:
        assert (await client.get(f"/words/{key}")).json() == {"text": "none yet"}


async def test_an_invalidation_is_tried_even_while_redis_is_left_alone(
    cache: Cache, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache.put(key, b"value")
    monkeypatch.setattr(cache.breaker, "_open_until", time.monotonic() + 60)  # after a failure
    assert await cache.get(key) is None
    await cache.invalidate(key)
    monkeypatch.setattr(cache.breaker, "_open_until", 0)
    assert await cache.get(key) is None


def test_a_url_that_is_none_is_refused_with_the_settings(database_url: str) -> None:
    with pytest.raises(ValidationError, match="redis:// or rediss://"):
        settings_for(database_url, redis_url="localhost:6379")


async def test_without_a_url_nothing_is_cached_and_nothing_fails(
    database_url: str, key: str
) -> None:
    settings = settings_for(database_url, redis_url=None)
    health = Health(settings)
    async with open_cache(settings, health) as cache:
        await cache.put(key, b"value")
        assert await cache.get(key) is None
        assert await health.components() == {}


async def test_a_redis_that_is_down_costs_nothing_but_the_cache(
    database_url: str, key: str
) -> None:
    app = app_with_words(settings_for(database_url, redis_url="redis://127.0.0.1:1/0"))
    async with running(app) as client:
        for _ in range(3):
            assert (await client.get(f"/words/{key}")).status_code == 200
        assert (await client.put(f"/words/{key}", params={"text": "new"})).status_code == 200
        assert (await client.get(f"/words/{key}")).json() == {"text": "new"}
        ready = await client.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["components"]["redis"] == "failed"


async def test_a_frozen_redis_slows_one_request_a_second_down(
    database_url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.circuit_breaker.WAIT_SECONDS", WAIT_SECONDS)
    with own_valkey() as valkey:
        app = app_with_words(settings_for(database_url, redis_url=valkey.url))
        async with running(app) as client:
            await client.get(f"/words/{key}")
            valkey.freeze()
            started = time.monotonic()
            for _ in range(20):
                assert (await client.get(f"/words/{key}")).status_code == 200
            waited = time.monotonic() - started
            assert waited < 20 * WAIT_SECONDS / 2  # with a wait for all, four times that
            valkey.thaw()
            await asyncio.sleep(PAUSE_SECONDS + 0.1)
            finds = app.state.finds
            await client.get(f"/words/{key}")
            await client.get(f"/words/{key}")
    assert app.state.finds <= finds + 1
