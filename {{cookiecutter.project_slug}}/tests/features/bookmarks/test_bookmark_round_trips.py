"""Exact round trips of each request: an N+1 query would increase them."""

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
    response = await client.request(method, path, **more)  # type: ignore[arg-type]  # httpx checks them
    assert response.is_success, response.text
    return proxy.round_trips


async def test_requests_take_exactly_the_expected_round_trips(
    client: AsyncClient, database_url: str
) -> None:
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        running(create_app(settings_for(url))) as proxied,
    ):
        proxied.headers = client.headers
        # The first attempts prepare the statements, one for each number of bookmarks.
        for attempt in range(3):
            costs: dict[str, int] = {}
            for number in range(3):
                tags = [f"tag-{n}" for n in range(number)]
                new = {"url": f"https://a.example/{attempt}/{number}", "title": "A", "tags": tags}
                costs[f"create with {number} tags"] = await cost(
                    proxy, proxied, "POST", "/bookmarks", json=new
                )
            listed = (await proxied.get("/bookmarks?limit=1")).json()["items"][0]
            location = f"/bookmarks/{listed['id']}"
            costs["read"] = await cost(proxy, proxied, "GET", location)
            for limit in (1, 3):
                costs[f"list of {limit}"] = await cost(
                    proxy, proxied, "GET", f"/bookmarks?limit={limit}"
                )
            query = "/bookmarks?limit=3&tag=tag-0&sort=title&text=a"
            costs["filter"] = await cost(proxy, proxied, "GET", query)
            version = {"If-Match": '"1"'}
            costs["replace"] = await cost(
                proxy, proxied, "PUT", location, json=new, headers=version
            )
            version = {"If-Match": '"2"'}
            costs["delete"] = await cost(proxy, proxied, "DELETE", location, headers=version)
    create = 3  # BEGIN, INSERT, COMMIT
    create += 1  # the job  # option: worker
    assert costs == {
        "create with 0 tags": create,
        "create with 1 tags": create + 1,  # the tags
        "create with 2 tags": create + 1,
        "read": 1,
        "list of 1": 2,  # the bookmarks, and the tags of all of them
        "list of 3": 2,
        "filter": 2,
        "replace": 5,  # BEGIN, SELECT FOR UPDATE, the tags, UPDATE, COMMIT
        "delete": 6,  # BEGIN, SELECT FOR UPDATE, the tags, two DELETE, COMMIT
    }
