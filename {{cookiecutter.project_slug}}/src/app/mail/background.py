"""Send mails in the processes of the service. A service with workers does not use it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, after_commit
from app.errors import Unavailable
from app.mail.sender import MailSender
from app.mail.settings import MailSettings

log = structlog.get_logger()

START_SECONDS = 2  # from the start of a process to its first sweep
SWEEP_SECONDS = 60
STOP_SECONDS = 3  # for the running attempt, when the process stops

# Sends the due mails after the session's commit. The text is the id of the new mail.
SendOnCommit = Callable[[AsyncSession, str], Awaitable[None]]


@asynccontextmanager
async def open_background_sender(
    settings: MailSettings, database: Database
) -> AsyncIterator[SendOnCommit]:
    """Send mails in this process: after each commit, and every minute.

    The sweep every minute retries failures, and resumes the work of processes that stopped.
    """
    has_work, is_stopping = asyncio.Event(), asyncio.Event()

    async def wake() -> None:
        has_work.set()

    async def send_on_commit(session: AsyncSession, _mail_id: str) -> None:
        after_commit(session, wake)

    task = asyncio.create_task(_sweep(MailSender(settings), database, has_work, is_stopping))
    try:
        yield send_on_commit
    finally:
        is_stopping.set()
        has_work.set()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        task.cancel()  # another process, or the next start, repeats the attempt
        with suppress(asyncio.CancelledError):
            await task


async def _sweep(
    sender: MailSender, database: Database, has_work: asyncio.Event, is_stopping: asyncio.Event
) -> None:
    """Send the due mails whenever there is work, and every minute."""
    pause_seconds = START_SECONDS
    while not is_stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(has_work.wait(), pause_seconds)
        is_woken = has_work.is_set()
        has_work.clear()
        pause_seconds = SWEEP_SECONDS
        try:
            while not is_stopping.is_set() and await sender.send_next(database):
                pass
            if not is_woken:
                await sender.delete_failed(database)
        except Unavailable:
            pass  # logged already; the next sweep tries again
        except Exception:  # the sweep must not end; the next one tries again
            log.exception("mails not swept")
