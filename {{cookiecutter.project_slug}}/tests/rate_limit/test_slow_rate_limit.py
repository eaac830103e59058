"""Redis behind a slow link: requests pass uncounted until it is connected, and then are counted."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from httpx import AsyncClient
from test_slow_redis import ROUND_TRIPS_SECONDS, until_nothing_is_dropped, wait_until_ready

from app.main import create_app
from conftest import running, settings_for
from own_valkey import Valkey, own_valkey

pytestmark = pytest.mark.skipif(
    "TEST_REDIS_URL" not in os.environ, reason="there is no embedded Valkey here: set REDIS_URL"
)


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with own_valkey() as valkey:
        yield valkey


async def are_all_counted(client: AsyncClient) -> bool:
    answers = await asyncio.gather(*(client.get("/openapi.json") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    return all("RateLimit" in answer.headers for answer in answers)


@pytest.mark.parametrize("round_trip_seconds", ROUND_TRIPS_SECONDS)
async def test_behind_a_slow_link_to_redis_requests_are_counted(
    database_url: str, valkey: Valkey, round_trip_seconds: float
) -> None:
    async with (
        valkey.behind_a_slow_link(round_trip_seconds) as url,
        running(create_app(settings_for(database_url, redis_url=url))) as client,
    ):
        await wait_until_ready(client)
        await until_nothing_is_dropped(lambda: are_all_counted(client))
