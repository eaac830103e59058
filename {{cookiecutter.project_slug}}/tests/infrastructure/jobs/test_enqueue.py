"""Jobs are part of the transaction that enqueues them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, open_database
from app.jobs.backend import BACKENDS
from app.jobs.definition import Job
from app.jobs.enqueue import enqueue
from app.jobs.models import JOBS
from app.settings import Settings
from conftest import settings_for
from counting_proxy import open_counting_proxy
from sql import fetch
from stored_jobs import store, stored

COUNT = select(func.count().label("jobs")).select_from(JOBS)


async def run(_session: AsyncSession, *, word: str) -> None: ...


JOB = Job("_test.job", run, 5, 1)


@pytest.fixture(params=BACKENDS)
async def database(
    request: pytest.FixtureRequest,
    settings: Settings,
    clean_tables: None,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Database]:
    assert clean_tables is None
    monkeypatch.setattr("app.jobs.backend.BACKENDS", [request.param])
    async with open_database(settings) as database:
        yield database


async def count(database: Database) -> int:
    (row,) = await fetch(database, COUNT)
    return int(row["jobs"])


async def test_job_is_stored_by_a_commit_and_not_after_a_rollback(database: Database) -> None:
    job_id = await store(database, JOB, word="a")
    row = await stored(database, job_id)
    assert (row["name"], row["status"], row["arguments"]) == ("_test.job", "queued", {"word": "a"})
    with pytest.raises(RuntimeError):
        async with database.session() as session:
            await enqueue(session, JOB, word="b")
            raise RuntimeError
    assert await count(database) == 1


async def test_jobs_with_the_same_key_are_stored_once(database: Database) -> None:
    ids = await asyncio.gather(*(store(database, JOB, key="k", word=str(n)) for n in range(5)))
    assert len(set(ids)) == 1
    assert await store(database, JOB, key="other", word="a") not in ids
    assert await store(database, JOB, word="a") != await store(database, JOB, word="a")
    assert await count(database) == 4


async def test_delay_and_priority_are_stored(database: Database) -> None:
    job_id = await store(database, JOB, delay=timedelta(hours=1), priority=7, word="a")
    row = await stored(database, job_id)
    assert row["run_after"] - row["created_at"] == timedelta(hours=1)
    assert row["priority"] == 7


@pytest.mark.parametrize("arguments", [{}, {"word": "a", "other": 1}, {"wort": "a"}])
async def test_wrong_arguments_are_refused_before_anything_is_stored(
    database: Database, arguments: dict[str, object]
) -> None:
    with pytest.raises(TypeError, match=r"_test\.job: "):
        await store(database, JOB, **arguments)
    assert await count(database) == 0


@pytest.mark.usefixtures("database")
async def test_enqueue_adds_one_round_trip(database_url: str) -> None:
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        open_database(settings_for(url)) as counted,
    ):
        trips = []
        for number in range(6):
            async with counted.session() as session:
                await session.execute(text("SELECT 1"))
                if number % 2:
                    await enqueue(session, JOB, word="a")
            trips.append(proxy.round_trips)
            proxy.round_trips = 0
    assert trips[-1] - trips[-2] == 1, trips
