"""Redis over a slow link: the connection completes after the request has stopped waiting."""

import asyncio
import uuid

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from cached_words import app_with_words
from conftest import running, settings_for
from valkey_server import (
    ROUND_TRIPS_SECONDS,
    Valkey,
    wait_until_ready,
    wait_until_stable,
)

pytestmark = pytest.mark.usefixtures("redis_url")


async def are_all_cached(client: AsyncClient, app: FastAPI) -> bool:
    """Return whether five concurrent reads are stored, and then answered from the cache."""
    paths = [f"/_test/words/{uuid.uuid4()}" for _ in range(5)]
    await asyncio.gather(*map(client.get, paths))
    loads = app.state.loads
    responses = await asyncio.gather(*map(client.get, paths))
    assert {response.status_code for response in responses} == {200}
    return bool(app.state.loads == loads)


@pytest.mark.usefixtures("busy_machine")
@pytest.mark.parametrize("round_trip_seconds", ROUND_TRIPS_SECONDS)
async def test_reads_over_a_slow_link_to_redis_are_answered_from_the_cache(
    database_url: str, valkey: Valkey, round_trip_seconds: float
) -> None:
    async with valkey.open_slow_link(round_trip_seconds) as url:
        app = app_with_words(settings_for(database_url, redis_url=url))
        async with running(app) as client:
            await wait_until_ready(client)
            await wait_until_stable(lambda: are_all_cached(client, app))
