"""The job that processes deliveries in a worker."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.db.session import Database
from app.features.webhooks.service import PROCESS_SECONDS, ProcessOnCommit, process_next
from app.jobs.definition import job
from app.jobs.queue import Queue

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


@asynccontextmanager
async def open_worker_processor(queue: Queue) -> AsyncIterator[ProcessOnCommit]:
    """Process deliveries in the worker: after each commit, and every minute."""
    yield lambda session, key: queue.enqueue(session, process_deliveries, key=key)
