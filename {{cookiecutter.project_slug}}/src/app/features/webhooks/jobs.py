"""The job that processes deliveries in a worker."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.features.webhooks.background import ProcessOnCommit
from app.features.webhooks.service import PROCESS_SECONDS, process_next
from app.jobs.definition import job
from app.jobs.enqueue import enqueue

MAX_SECONDS = 10  # then the job ends, so that other jobs run; the next one continues


@job(
    timeout_seconds=MAX_SECONDS + PROCESS_SECONDS + 5,
    attempts=3,
    cron="* * * * *",
    has_own_transactions=True,
)
async def process_deliveries(database: Database) -> int:
    """Process the due deliveries, each in its own transaction, and return their number."""
    until = time.monotonic() + MAX_SECONDS
    count = 0
    while time.monotonic() < until and await process_next(database):
        count += 1
    return count


async def process_in_worker(session: AsyncSession, delivery: str) -> None:
    """Process the due deliveries in a worker, after the session's commit.

    Args:
        session: the transaction that stores a delivery.
        delivery: names it.
    """
    await enqueue(session, process_deliveries, key=delivery)


@asynccontextmanager
async def open_worker_processor(_database: Database) -> AsyncIterator[ProcessOnCommit]:
    """Process deliveries in a worker: after each commit, and every minute."""
    yield process_in_worker
