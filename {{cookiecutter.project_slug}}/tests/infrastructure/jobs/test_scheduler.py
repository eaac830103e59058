"""Schedules, by the clock of PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, open_database
from app.jobs import scheduler
from app.jobs.definition import Job
from app.jobs.models import JOBS
from app.settings import Settings
from sql import fetch

SUNDAY = datetime(2026, 3, 1, 6, 30, tzinfo=UTC)


async def run(_session: AsyncSession) -> None: ...


def job_of(cron: str) -> Job:
    return Job("_test.job", run, 1, 1, cron=cron)


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


async def keys(database: Database) -> list[str]:
    rows = await fetch(database, select(JOBS.c.key).order_by(JOBS.c.key))
    return [str(row["key"]) for row in rows]


async def test_job_is_enqueued_once_a_minute_by_several_workers(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers ask at several times of a minute. Their own clocks are not read."""
    for second in (0, 17, 59):
        now = SUNDAY + timedelta(seconds=second)
        monkeypatch.setattr(scheduler, "_NOW", select(literal(now)))
        found = await asyncio.gather(
            *(scheduler.enqueue_due([job_of("* * * * *")], database) for _ in range(3))
        )
        assert found == [now] * 3
    assert await keys(database) == ["2026-03-01T06:30"]
    later = SUNDAY + timedelta(minutes=1)
    monkeypatch.setattr(scheduler, "_NOW", select(literal(later)))
    await scheduler.enqueue_due([job_of("* * * * *")], database, SUNDAY)
    assert await keys(database) == ["2026-03-01T06:30", "2026-03-01T06:31"]


async def test_run_missed_without_a_worker_is_made_up_for_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "_NOW", select(literal(SUNDAY)))
    jobs = [job_of("27,28 6 * * *")]
    await scheduler.enqueue_due(jobs, database)
    await scheduler.enqueue_due(jobs, database, SUNDAY - timedelta(hours=2))
    assert await keys(database) == ["2026-03-01T06:28"]
    await scheduler.enqueue_due([job_of("20 6 * * *")], database)
    assert len(await keys(database)) == 1, "it is more than five minutes ago"


@pytest.mark.parametrize(
    ("cron", "since", "expected"),
    [
        ("* * * * *", 1, 0),
        ("* * * * *", 5, 0),
        ("*/15 * * * *", 1, 0),
        ("30 6 * * sun", 1, 0),
        ("28 6 * * *", 5, 2),
        ("28 6 * * *", 2, None),
        ("31 * * * *", 5, None),
        ("30 6 * * 1-5", 5, None),
    ],
)
def test_last_due_minute_since_the_last_look_is_found(
    cron: str, since: int, expected: int | None
) -> None:
    """The numbers are minutes before 6:30 of a Sunday."""
    due = scheduler.last_due(cron, SUNDAY - timedelta(minutes=since), SUNDAY)
    assert due == (None if expected is None else SUNDAY - timedelta(minutes=expected))
