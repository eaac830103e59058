"""The round trips of each request are asserted exactly: an N+1 query would add to them."""

from httpx import AsyncClient

from app.main import create_app
from conftest import running, settings_for
from counting_proxy import CountingProxy, open_counting_proxy


async def cost(
    proxy: CountingProxy, client: AsyncClient, method: str, path: str, **more: object
) -> int:
    if "?" in path:
        await client.get(path)  # prepares the statements for this number of rows
    proxy.round_trips = 0
    response = await client.request(method, path, **more)  # type: ignore[arg-type]  # as httpx has it
    assert response.is_success, response.text
    return proxy.round_trips


async def test_requests_take_exactly_these_round_trips(
    client: AsyncClient, database_url: str
) -> None:
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        running(create_app(settings_for(url))) as own,
    ):
        own.headers = client.headers
        for attempt in ("while statements are prepared", "afterwards"):
            costs: dict[str, int] = {}
            for number in range(3):
                tags = [f"tag-{n}" for n in range(number)]
                new = {"url": f"https://a.example/{attempt}/{number}", "title": "A", "tags": tags}
                costs[f"create with {number} tags"] = await cost(
                    proxy, own, "POST", "/bookmarks", json=new
                )
            listed = (await own.get("/bookmarks?limit=1")).json()["items"][0]
            place = f"/bookmarks/{listed['id']}"
            costs["read"] = await cost(proxy, own, "GET", place)
            for limit in (1, 3):
                costs[f"list of {limit}"] = await cost(
                    proxy, own, "GET", f"/bookmarks?limit={limit}"
                )
            query = "/bookmarks?limit=3&tag=tag-0&sort=title&text=a"
            costs["filter"] = await cost(proxy, own, "GET", query)
            seen = {"If-Match": '"1"'}
            costs["replace"] = await cost(proxy, own, "PUT", place, json=new, headers=seen)
            seen = {"If-Match": '"2"'}
            costs["delete"] = await cost(proxy, own, "DELETE", place, headers=seen)
    assert costs == {
        "create with 0 tags": 3,  # BEGIN, INSERT, COMMIT
        "create with 1 tags": 4,  # and the tags
        "create with 2 tags": 4,
        "read": 1,
        "list of 1": 2,  # the bookmarks, and the tags of all of them
        "list of 3": 2,
        "filter": 2,
        "replace": 5,  # BEGIN, SELECT FOR UPDATE, the tags, UPDATE, COMMIT
        "delete": 6,  # BEGIN, SELECT FOR UPDATE, the tags, two DELETE, COMMIT
    }
