"""Deliveries are processed by the worker, if there is a queue."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.db.database import Database, Transaction
from app.features.webhooks.service import PROCESS_SECONDS, process_next
from app.jobs.definition import job
from app.jobs.queue import Queue, open_queue
from app.settings import Settings

TURN_SECONDS = 10  # then another job gets its turn; what is left is done by the next one


@job(
    timeout_seconds=TURN_SECONDS + PROCESS_SECONDS + 5,
    attempts=3,
    cron="* * * * *",
    has_own_transactions=True,
)
async def process_deliveries(database: Database) -> int:
    """Process what is due, each delivery in a transaction of its own; how many there were."""
    until = time.monotonic() + TURN_SECONDS
    count = 0
    while time.monotonic() < until and await process_next(database):
        count += 1
    return count


class WorkerProcessor:
    """Has it done by the worker: at once, and every minute."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def process_after(self, transaction: Transaction, key: str) -> None:
        self._queue.enqueue(transaction, process_deliveries, key=key)


@asynccontextmanager
async def open_worker_processor(settings: Settings) -> AsyncIterator[WorkerProcessor]:
    async with open_queue(settings) as queue:
        yield WorkerProcessor(queue)
