"""Readiness and requests with a Redis that is full, read-only or flushed."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from app.service_info import SERVICE_NAME
from cached_words import app_with_words, set_generous_timeouts
from conftest import Lines, running, settings_for
from valkey_server import Valkey

pytestmark = pytest.mark.usefixtures("redis_url")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the checks for each probe, and try Redis in each request."""
    set_generous_timeouts(monkeypatch)
    monkeypatch.setattr("app.web.checks.SHARED_SECONDS", 0.0)
    monkeypatch.setattr("app.cache.circuit_breaker.PAUSE_SECONDS", 0.0)


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url) as redis:
        yield redis


@pytest.fixture
async def client(database_url: str, valkey: Valkey) -> AsyncIterator[AsyncClient]:
    async with running(app_with_words(settings_for(database_url, redis_url=valkey.url))) as client:
        yield client


async def readiness(client: AsyncClient) -> tuple[int, str, str]:
    ready = await client.get("/health/ready")
    return ready.status_code, ready.json()["status"], ready.json()["components"]["redis"]


READY = (200, "ready", "ok")
DEGRADED = (200, "degraded", "failed")


async def break_by_memory(redis: Redis) -> None:
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", "1")


async def break_by_role(redis: Redis) -> None:
    """Make it a replica of a missing server: a replica refuses writes."""
    await redis.replicaof("127.0.0.1", "1")


async def repair(redis: Redis) -> None:
    await redis.config_set("maxmemory", "0")
    await redis.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("break_", "reason"),
    [(break_by_memory, "OutOfMemoryError"), (break_by_role, "ReadOnlyError")],
)
async def test_readiness_with_a_read_only_redis_is_degraded_until_repaired(
    client: AsyncClient,
    redis: Redis,
    lines: Lines,
    break_: Callable[[Redis], Awaitable[None]],
    reason: str,
) -> None:
    assert await readiness(client) == READY
    await break_(redis)
    assert await readiness(client) == DEGRADED
    path = f"/_test/words/{uuid.uuid4()}"
    for _ in range(2):
        assert (await client.get(path)).status_code == 200
    assert (await client.put(path, params={"text": "new"})).status_code == 200
    assert (await client.get(path)).json() == {"text": "new"}
    reasons = {line["message"]: line["reason"] for line in lines() if line["level"] == "warn"}
    assert reason in reasons["health check failed"]
    assert reason in reasons["redis unavailable"]
    await repair(redis)
    assert await readiness(client) == READY


async def test_change_with_a_full_redis_is_seen_by_the_next_read(
    client: AsyncClient, redis: Redis
) -> None:
    """A full Redis cannot store the invalidation marker, so the cached value is deleted."""
    path = f"/_test/words/{uuid.uuid4()}"
    await client.get(path)
    await break_by_memory(redis)
    assert (await client.put(path, params={"text": "new"})).status_code == 200
    assert (await client.get(path)).json() == {"text": "new"}


async def test_flushed_redis_stays_ready_and_is_filled_again(
    client: AsyncClient, redis: Redis
) -> None:
    key = f"{uuid.uuid4()}"
    await client.get(f"/_test/words/{key}")
    await redis.flushall()
    await redis.script_flush()
    assert await readiness(client) == READY
    response = await client.get(f"/_test/words/{key}")
    assert response.status_code == 200
    assert "RateLimit" in response.headers  # option: rate_limit
    assert await redis.exists(f"{SERVICE_NAME}:_test:word:{key}")
    assert await redis.ttl(f"{SERVICE_NAME}:health-check") > 0
