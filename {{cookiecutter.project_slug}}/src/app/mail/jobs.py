"""The job that sends mails in a worker."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.jobs.definition import Job, job
from app.jobs.enqueue import enqueue
from app.mail.background import SendOnCommit
from app.mail.sender import SEND_SECONDS, MailSender
from app.mail.settings import MailSettings

MAX_SECONDS = 10  # then the job ends, so that other jobs run; the next one continues


@job(
    timeout_seconds=MAX_SECONDS + SEND_SECONDS + 5,
    attempts=3,
    cron="* * * * *",
    has_own_transactions=True,
)
async def send_mails(database: Database, sender: MailSender | None = None) -> int:
    """Send the due mails, each in its own transaction, and return their number.

    The job of a worker has the sender: see `mail_jobs`.
    """
    assert sender is not None
    until = time.monotonic() + MAX_SECONDS
    count = 0
    while time.monotonic() < until and await sender.send_next(database):
        count += 1
    if count == 0:
        await sender.delete_failed(database)
    return count


def mail_jobs(settings: MailSettings) -> dict[str, Job]:
    """Return the job of a worker by its name."""
    run = partial(send_mails.run, sender=MailSender(settings))
    return {send_mails.name: replace(send_mails, run=run)}


async def send_in_worker(session: AsyncSession, mail_id: str) -> None:
    """Send the due mails in a worker, after the session's commit.

    Args:
        session: the transaction that stores a mail.
        mail_id: of the mail.
    """
    await enqueue(session, send_mails, key=mail_id)


@asynccontextmanager
async def open_worker_sender(
    _settings: MailSettings, _database: Database
) -> AsyncIterator[SendOnCommit]:
    """Send mails in a worker: after each commit, and every minute."""
    yield send_in_worker
