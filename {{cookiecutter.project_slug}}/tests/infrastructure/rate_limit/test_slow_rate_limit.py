"""Redis over a slow link: requests are not counted until the connection is open."""

import asyncio

import pytest
from httpx import AsyncClient

from app.main import create_app
from conftest import running, settings_for
from valkey_server import (
    ROUND_TRIPS_SECONDS,
    Valkey,
    wait_until_ready,
    wait_until_stable,
)

pytestmark = pytest.mark.usefixtures("redis_url")


async def are_all_counted(client: AsyncClient) -> bool:
    responses = await asyncio.gather(*(client.get("/openapi.json") for _ in range(5)))
    assert {response.status_code for response in responses} == {200}
    return all("RateLimit" in response.headers for response in responses)


@pytest.mark.usefixtures("busy_machine")
@pytest.mark.parametrize("round_trip_seconds", ROUND_TRIPS_SECONDS)
async def test_requests_over_a_slow_link_to_redis_are_counted(
    database_url: str, valkey: Valkey, round_trip_seconds: float
) -> None:
    async with (
        valkey.open_slow_link(round_trip_seconds) as url,
        running(create_app(settings_for(database_url, redis_url=url))) as client,
    ):
        await wait_until_ready(client)
        await wait_until_stable(lambda: are_all_counted(client))
