"""Process deliveries in the processes of the service. A service with workers does not use it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, after_commit
from app.errors import Unavailable
from app.features.webhooks.service import process_next

log = structlog.get_logger()

START_SECONDS = 2  # from the start of a process to its first sweep
SWEEP_SECONDS = 60
STOP_SECONDS = 3  # for the running attempt, when the process stops

# Processes the due deliveries after the session's commit. The text names the delivery.
ProcessOnCommit = Callable[[AsyncSession, str], Awaitable[None]]


@asynccontextmanager
async def open_background_processor(database: Database) -> AsyncIterator[ProcessOnCommit]:
    """Process deliveries in this process: after each commit, and every minute.

    The sweep every minute retries failures, and resumes the work of processes that stopped.
    """
    has_work, is_stopping = asyncio.Event(), asyncio.Event()

    async def wake() -> None:
        has_work.set()

    task = asyncio.create_task(_sweep(database, has_work, is_stopping))

    async def process_on_commit(session: AsyncSession, _delivery: str) -> None:
        after_commit(session, wake)

    try:
        yield process_on_commit
    finally:
        is_stopping.set()
        has_work.set()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        task.cancel()  # rolls back the attempt; another process, or the next start, repeats it
        with suppress(asyncio.CancelledError):
            await task


async def _sweep(database: Database, has_work: asyncio.Event, is_stopping: asyncio.Event) -> None:
    """Process the due deliveries whenever there is work, and every minute."""
    pause_seconds = START_SECONDS
    while not is_stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(has_work.wait(), pause_seconds)
        has_work.clear()
        pause_seconds = SWEEP_SECONDS
        try:
            while not is_stopping.is_set() and await process_next(database):
                pass
        except Unavailable:
            pass  # logged already; the next sweep tries again
        except Exception:
            log.exception("webhooks not swept")  # the next sweep tries again
