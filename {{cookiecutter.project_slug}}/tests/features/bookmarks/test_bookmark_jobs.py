import uuid
from typing import Any

from httpx import AsyncClient
from sqlalchemy import select

from app.db.session import open_database
from app.features.bookmarks.jobs import find_duplicates, import_bookmarks
from app.jobs.attempts import attempt
from app.jobs.models import JOBS
from app.settings import Settings
from conftest import is_problem
from sql import fetch
from stored_jobs import context_of, stored

DUPLICATES = ["http://a.example/x", "https://www.a.example/x/", "http://www.a.example/x"]
OTHERS = ["https://a.example/x/y", "https://b.example/x", "https://a.example/x?y=1"]


def bookmark(url: str, **values: Any) -> dict[str, Any]:
    return {"url": url, "title": "A page", **values}


async def test_find_duplicates_returns_bookmarks_of_the_same_page(
    client: AsyncClient, settings: Settings
) -> None:
    ids = {}
    for url in ["https://a.example/x", *DUPLICATES, *OTHERS]:
        response = await client.post("/bookmarks", json=bookmark(url))
        ids[url] = response.json()["id"]
    async with open_database(settings) as database, database.session() as session:
        found = await find_duplicates.run(session, bookmark_id=ids["https://a.example/x"])
    assert set(found) == {ids[url] for url in DUPLICATES}


async def test_new_bookmark_enqueues_find_duplicates_and_a_refused_one_does_not(
    client: AsyncClient, settings: Settings
) -> None:
    new = bookmark("https://a.example/x")
    created = await client.post("/bookmarks", json=new, headers={"X-Request-Id": "request-7"})
    assert (await client.post("/bookmarks", json=new)).status_code == 409
    async with open_database(settings) as database:
        (job,) = await fetch(database, select(JOBS))
    assert job["name"] == "bookmarks.find_duplicates"
    assert job["arguments"] == {"bookmark_id": created.json()["id"]}
    assert job["request_id"] == "request-7"


async def test_import_is_accepted_and_its_status_can_be_read(
    client: AsyncClient, settings: Settings
) -> None:
    await client.post("/bookmarks", json=bookmark("https://a.example/0"))
    pages = [bookmark(f"https://a.example/{number}", tags=["a"]) for number in range(120)]
    accepted = await client.post("/bookmarks/imports", json={"bookmarks": pages})
    assert accepted.status_code == 202
    location = accepted.headers["Location"]
    assert location == f"/jobs/{accepted.json()['id']}"
    queued = (await client.get(location)).json()
    assert (queued["status"], queued["progress"], queued["result"]) == ("queued", None, None)
    async with open_database(settings) as database:
        job_id = uuid.UUID(accepted.json()["id"])
        context = context_of(database, import_bookmarks)
        assert await attempt(context, job_id) is None
        row = await stored(database, job_id)
    done = (await client.get(location)).json()
    assert (done["status"], done["attempts"]) == ("succeeded", 1)
    assert done["result"] == {"added": 119, "existing": 1}
    assert done["progress"] == {"done": 100, "total": 120} == row["progress"]
    page = (await client.get("/bookmarks", params={"tag": "a", "limit": 1000})).json()
    assert len(page["items"]) == 119


async def test_failed_job_shows_a_problem_and_no_internal_text(
    client: AsyncClient, settings: Settings
) -> None:
    accepted = await client.post(
        "/bookmarks/imports", json={"bookmarks": [bookmark("https://a.example/x")]}
    )
    async with open_database(settings) as database:
        async with database.session() as session:
            await session.execute(
                JOBS.update().values(arguments={"bookmarks": [{"url": "secret"}]})
            )
        for _ in range(import_bookmarks.attempts):
            await attempt(context_of(database, import_bookmarks), uuid.UUID(accepted.json()["id"]))
    failed = await client.get(accepted.headers["Location"])
    assert failed.json()["status"] == "failed"
    assert failed.json()["problem"]["type"] == "urn:problem:job-failed"
    assert "secret" not in failed.text


async def test_unknown_job_returns_404(client: AsyncClient) -> None:
    assert is_problem(await client.get(f"/jobs/{uuid.uuid4()}"), 404, "job-not-found")


async def test_import_without_bookmarks_returns_422(client: AsyncClient) -> None:
    assert (await client.post("/bookmarks/imports", json={"bookmarks": []})).status_code == 422
