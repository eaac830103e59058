"""One round trip to read, and three to change: BEGIN, the statement, COMMIT."""

from httpx import AsyncClient

from app.main import create_app
from conftest import running, settings_for
from counting_proxy import Relay, open_relay

READ, CHANGE = 1, 3


async def cost(relay: Relay, client: AsyncClient, method: str, path: str, **more: object) -> int:
    relay.round_trips = 0
    response = await client.request(method, path, **more)  # type: ignore[arg-type]  # as httpx has it
    assert response.is_success, response.text
    return relay.round_trips


async def test_requests_take_no_more_round_trips_than_they_need(
    client: AsyncClient, database_url: str
) -> None:
    async with (
        open_relay(database_url) as (relay, url),
        running(create_app(settings_for(url))) as own,
    ):
        own.headers = client.headers
        for time in ("while statements are prepared", "from then on"):
            costs = []
            new = {"url": f"https://a.example/{time}", "title": "A"}
            costs.append(await cost(relay, own, "POST", "/bookmarks", json=new))
            place = f"/bookmarks/{(await own.get('/bookmarks')).json()['items'][0]['id']}"
            costs.append(await cost(relay, own, "GET", place))
            costs.append(await cost(relay, own, "GET", "/bookmarks?limit=1"))
            seen = {"If-Match": '"1"'}
            costs.append(await cost(relay, own, "PUT", place, json=new, headers=seen))
            costs.append(await cost(relay, own, "DELETE", place, headers={"If-Match": '"2"'}))
    assert costs == [CHANGE, READ, READ, CHANGE, CHANGE]
