import json
import os

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from app.service_info import SERVICE_NAME

pytestmark = pytest.mark.skipif(
    "TEST_REDIS_URL" not in os.environ, reason="there is no embedded Valkey here: set REDIS_URL"
)


async def test_a_bookmark_is_read_through_the_cache_until_it_is_changed(
    client: AsyncClient,
) -> None:
    new = {"url": "https://a.example/x", "title": "A"}
    place = (await client.post("/bookmarks", json=new)).headers["Location"]
    bookmark = (await client.get(place)).json()
    name = f"{SERVICE_NAME}:bookmark:{bookmark['id']}"
    async with Redis.from_url(os.environ["TEST_REDIS_URL"]) as redis:
        await redis.set(name, json.dumps(bookmark | {"title": "from the cache"}))
    assert (await client.get(place)).json()["title"] == "from the cache"

    changed = new | {"title": "B"}
    await client.put(place, json=changed, headers={"If-Match": '"1"'})
    assert (await client.get(place)).json()["title"] == "B"
    await client.delete(place, headers={"If-Match": '"2"'})
    assert (await client.get(place)).status_code == 404
