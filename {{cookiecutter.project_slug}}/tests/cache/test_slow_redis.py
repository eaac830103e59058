"""Redis behind a slow link: connecting takes longer than a request waits, and still completes."""

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from test_read_through import app_with_words

from conftest import running, settings_for
from own_valkey import Valkey, own_valkey

pytestmark = pytest.mark.skipif(
    "TEST_REDIS_URL" not in os.environ, reason="there is no embedded Valkey here: set REDIS_URL"
)

READY_WITHIN_SECONDS = 10
NEVER_SECONDS = 60  # bounds a hang
ROUND_TRIPS_SECONDS = [0.02, 0.1, 0.2, 0.3]


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with own_valkey() as valkey:
        yield valkey


async def wait_until_ready(client: AsyncClient) -> None:
    """Not degraded: Redis has answered its check."""
    async with asyncio.timeout(READY_WITHIN_SECONDS):
        while (await client.get("/health/ready")).json()["status"] != "ready":
            await asyncio.sleep(0.05)


async def are_all_cached(client: AsyncClient, app: FastAPI) -> bool:
    """Whether five reads at once are stored, and are then answered from the cache."""
    paths = [f"/words/{uuid.uuid4()}" for _ in range(5)]
    await asyncio.gather(*map(client.get, paths))
    loads = app.state.loads
    answers = await asyncio.gather(*map(client.get, paths))
    assert {answer.status_code for answer in answers} == {200}
    return bool(app.state.loads == loads)


async def until_nothing_is_dropped(is_complete: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so three times in a row: at first, connections are still being opened."""
    in_a_row = 0
    async with asyncio.timeout(NEVER_SECONDS):
        while in_a_row < 3:
            in_a_row = in_a_row + 1 if await is_complete() else 0


@pytest.mark.parametrize("round_trip_seconds", ROUND_TRIPS_SECONDS)
async def test_behind_a_slow_link_to_redis_reads_are_answered_from_the_cache(
    database_url: str, valkey: Valkey, round_trip_seconds: float
) -> None:
    async with valkey.behind_a_slow_link(round_trip_seconds) as url:
        app = app_with_words(settings_for(database_url, redis_url=url))
        async with running(app) as client:
            await wait_until_ready(client)
            await until_nothing_is_dropped(lambda: are_all_cached(client, app))
