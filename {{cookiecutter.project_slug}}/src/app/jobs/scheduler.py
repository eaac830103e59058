"""Enqueue jobs when they are due. Every worker does it.

The key of a scheduled job is its minute, so it is stored once. The minute is that of PostgreSQL's
clock, because the clocks of workers may differ.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog
from cronsim import CronSim
from sqlalchemy import func, select

from app.db.session import Database
from app.errors import Unavailable
from app.jobs.definition import Job
from app.jobs.enqueue import enqueue

log = structlog.get_logger()

# Also of a time without a worker, for example during a deployment, one run is made up for.
LOOK_BACK = timedelta(minutes=5)
RETRY_SECONDS = 5.0  # after the database was unavailable
_NOW = select(func.now())


async def schedule(jobs: Iterable[Job], database: Database, stop: asyncio.Event) -> None:
    """Enqueue due jobs every minute, until `stop` is set."""
    scheduled = [job for job in jobs if job.cron]
    done_until: datetime | None = None
    while not stop.is_set():
        try:
            now = await enqueue_due(scheduled, database, done_until)
            done_until = now.replace(second=0, microsecond=0)
            pause = (done_until + timedelta(minutes=1) - now).total_seconds()
        except Unavailable:
            pause = RETRY_SECONDS
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)


async def enqueue_due(
    jobs: Iterable[Job], database: Database, since: datetime | None = None
) -> datetime:
    """Enqueue jobs that are due. Of several missed runs of a job, only the last is enqueued.

    Args:
        jobs: with a schedule.
        database: has the clock and the jobs.
        since: the last minute that was looked at; None at the start.

    Returns:
        The time.
    """
    async with database.session() as session:
        now: datetime = (await session.execute(_NOW)).scalar_one().astimezone(UTC)
        minute = now.replace(second=0, microsecond=0)
        for job in jobs:
            assert job.cron is not None
            if due := last_due(job.cron, since or minute - LOOK_BACK, minute):
                await enqueue(session, job, key=f"{due:%Y-%m-%dT%H:%M}")
    return now


def last_due(cron: str, since: datetime, until: datetime) -> datetime | None:
    """Return the last minute of a schedule after `since` and not after `until`."""
    found = None
    for minute in CronSim(cron, since):
        if minute > until:
            break
        found = minute
    return found
