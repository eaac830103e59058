import pytest
from httpx import AsyncClient

from app.db.session import open_database
from app.features.bookmarks.jobs import find_duplicates
from app.jobs.definition import Message
from app.jobs.queue import Queue
from app.settings import Settings

DUPLICATES = ["http://a.example/x", "https://www.a.example/x/", "http://www.a.example/x"]
OTHERS = ["https://a.example/x/y", "https://b.example/x", "https://a.example/x?y=1"]


async def test_find_duplicates_returns_bookmarks_of_the_same_page(
    client: AsyncClient, settings: Settings
) -> None:
    ids = {}
    for url in ["https://a.example/x", *DUPLICATES, *OTHERS]:
        response = await client.post("/bookmarks", json={"url": url, "title": "A page"})
        ids[url] = response.json()["id"]
    async with open_database(settings) as database, database.session() as session:
        found = await find_duplicates.run(session, bookmark_id=ids["https://a.example/x"])
    assert set(found) == {ids[url] for url in DUPLICATES}


async def test_new_bookmark_enqueues_find_duplicates_and_a_refused_one_does_not(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Message] = []

    async def record(_queue: Queue, message: Message) -> None:
        sent.append(message)

    monkeypatch.setattr(Queue, "send", record)
    new = {"url": "https://a.example/x", "title": "A page"}
    created = await client.post("/bookmarks", json=new, headers={"X-Request-Id": "request-7"})
    bookmark_id = created.json()["id"]
    assert sent == [
        Message(
            "bookmarks.find_duplicates",
            f"bookmarks.find_duplicates:{bookmark_id}",
            {"bookmark_id": bookmark_id},
            "request-7",
        )
    ]
    assert (await client.post("/bookmarks", json=new)).status_code == 409
    assert len(sent) == 1
