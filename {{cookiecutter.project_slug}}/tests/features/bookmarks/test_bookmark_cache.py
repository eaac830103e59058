import json

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from app.service_info import SERVICE_NAME

pytestmark = pytest.mark.usefixtures("redis_url")


async def test_bookmark_is_read_from_the_cache_until_it_changes(
    client: AsyncClient, redis_url: str
) -> None:
    new = {"url": "https://a.example/x", "title": "A"}
    location = (await client.post("/bookmarks", json=new)).headers["Location"]
    bookmark = (await client.get(location)).json()
    key = f"{SERVICE_NAME}:bookmark:{bookmark['id']}"
    async with Redis.from_url(redis_url) as redis:
        await redis.set(key, json.dumps(bookmark | {"title": "from the cache"}))
    assert (await client.get(location)).json()["title"] == "from the cache"

    changed = new | {"title": "B"}
    await client.put(location, json=changed, headers={"If-Match": '"1"'})
    assert (await client.get(location)).json()["title"] == "B"
    await client.delete(location, headers={"If-Match": '"2"'})
    assert (await client.get(location)).status_code == 404
