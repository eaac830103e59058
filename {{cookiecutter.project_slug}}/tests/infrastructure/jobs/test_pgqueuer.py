"""The messages of PgQueuer, and its tables."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import (
    ColumnElement,
    Executable,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, open_database
from app.jobs.administration import cancel, retry
from app.jobs.definition import Job
from app.jobs.pgqueuer.statements import CLEANUP, DELIVER
from app.settings import Settings
from sql import fetch
from stored_jobs import store

LOG = table("pgqueuer_log", *map(column, ("created", "job_id", "status", "priority", "entrypoint")))
SUCCESSFUL: ColumnElement[str] = literal_column("'successful'::pgqueuer_status")
MESSAGES = text("SELECT priority, entrypoint, payload FROM pgqueuer")


async def run(_session: AsyncSession) -> None: ...


JOB = Job("_test.job", run, 5, 1)


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


async def execute(database: Database, *statements: Executable) -> None:
    async with database.session() as session:
        for statement in statements:
            await session.execute(statement)


async def messages(database: Database) -> list[dict[str, object]]:
    return [dict(row) for row in await fetch(database, MESSAGES)]


async def test_message_is_stored_once_and_again_if_it_is_lost(database: Database) -> None:
    job_id = await store(database, JOB, key="k", priority=3)
    assert await store(database, JOB, key="k") == job_id
    message = {"priority": 3, "entrypoint": "_test.job", "payload": str(job_id).encode()}
    assert await messages(database) == [message]
    await execute(database, DELIVER)
    assert await messages(database) == [message]
    await execute(database, text("DELETE FROM pgqueuer"), DELIVER)
    assert await messages(database) == [message]


async def test_job_that_has_ended_gets_a_message_only_by_a_retry(database: Database) -> None:
    job_id = await store(database, JOB)
    assert await cancel(job_id, database)
    await execute(database, text("DELETE FROM pgqueuer"), DELIVER)
    assert await messages(database) == []
    assert await retry(job_id, database)
    assert len(await messages(database)) == 1


async def test_old_lines_of_the_log_of_pgqueuer_are_deleted(database: Database) -> None:
    for job_id, minutes in ((1, 61), (2, 59)):
        created = func.now() - timedelta(minutes=minutes)
        values = {"created": created, "job_id": job_id, "priority": 0, "entrypoint": "_test"}
        await execute(database, insert(LOG).values(values | {"status": SUCCESSFUL}))
    await execute(database, *CLEANUP)
    rows = await fetch(database, select(LOG.c.job_id).where(LOG.c.entrypoint == "_test"))
    assert [row["job_id"] for row in rows] == [2]
    await execute(database, delete(LOG))
