"""A database, jobs that write to it, and workers, for the tests of worker processes."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import Executable, select, text
from structlog.contextvars import bound_contextvars

from app.db.session import open_database
from app.jobs.definition import Job
from app.jobs.models import JOBS
from conftest import settings_for
from processes import HANG_SECONDS, RESERVED, Service, environment
from sql import fetch
from stored_jobs import store
from valkey_server import start_valkey  # option: celery

MODULE = '''
"""Jobs for a test. A sequence counts the attempts: a rollback does not reset it."""

import asyncio
import os

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.definition import job

_TRY = text("SELECT nextval('_test_tries')")
_INSERT = text("INSERT INTO _test_counted (word) VALUES (:word)")


@job(attempts=3)
async def count(
    session: AsyncSession, *, word: str, seconds: float = 0, slow: int = 0, failing: int = 0
) -> str:
    """Insert a word; the first `slow` attempts take some seconds, the first `failing` fail."""
    attempt = await session.scalar(_TRY)
    await session.execute(_INSERT, {"word": word})
    structlog.get_logger().info("counting", word=word)
    if attempt <= slow:
        await asyncio.sleep(seconds)
    if attempt <= failing:
        raise RuntimeError("not yet")
    return word


@job(attempts=30)
async def add(session: AsyncSession, *, word: str) -> None:
    await asyncio.sleep(0.02)
    await session.execute(_INSERT, {"word": word})


@job(attempts=2)
async def kill(session: AsyncSession) -> None:
    await session.scalar(_TRY)
    os._exit(9)


@job(concurrency=1)
async def alone(session: AsyncSession, *, word: str) -> None:
    structlog.get_logger().info("begin", word=word)
    await asyncio.sleep(0.3)
    structlog.get_logger().info("end", word=word)


@job(cron="* * * * *")
async def tick(session: AsyncSession) -> None:
    await session.execute(_INSERT, {"word": "tick"})
'''
TICK = "tick"
CREATE = ("CREATE TABLE _test_counted (word text)", "CREATE SEQUENCE _test_tries")
# Shorter times for tests. A lease must outlast a pause of a busy machine.
SHORTER = {
    "LEASE_SECONDS = 20.0": "LEASE_SECONDS = 4.0",
    "BEAT_SECONDS = 5.0": "BEAT_SECONDS = 1.0",
    "DELIVER_SECONDS = 30.0": "DELIVER_SECONDS = 2.0",
    "DEAD_AFTER = timedelta(seconds=30)": "DEAD_AFTER = timedelta(seconds=4)",
    "RESEND_AFTER = timedelta(seconds=60)": "RESEND_AFTER = timedelta(seconds=4)",
    "UNKNOWN_PAUSE_SECONDS = 10.0": "UNKNOWN_PAUSE_SECONDS = 1.0",
}


async def stub(
    _session: object, *, word: str = "", seconds: float = 0, slow: int = 0, failing: int = 0
) -> None:
    """Has the arguments of the jobs above."""


def job_named(name: str) -> Job:
    return Job(f"{RESERVED}.{name}", stub, 30, 3)


class WorkerSetup:
    """A database, a table that the jobs write to, and workers with one backend."""

    def __init__(self, database_url: str, source: Path, stack: ExitStack) -> None:
        self.database_url = database_url
        self.folder = source
        self._stack = stack
        self.settings = settings_for(database_url)
        self.valkey = stack.enter_context(start_valkey())  # option: celery

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of a process that runs the copy of the source."""
        return environment(
            self.database_url,
            REDIS_URL=self.valkey.url,  # option: celery
            PYTHONPATH=str(self.folder),
            **variables,
        )

    def start(self, **variables: str) -> Service:
        env = self.environment(**variables)
        return self._stack.enter_context(Service(["app", "worker"], env))

    async def send(self, name: str = "count", **arguments: Any) -> str:
        """Enqueue a job, and return its id."""
        async with open_database(self.settings) as database:
            with bound_contextvars(request_id="request-7"):
                return str(await store(database, job_named(name), **arguments))

    async def send_words(self, name: str, words: list[str]) -> None:
        async with open_database(self.settings) as database:
            for word in words:
                await store(database, job_named(name), word=word)

    async def fetch(self, statement: Executable) -> list[Any]:
        async with open_database(self.settings) as database:
            return list(await fetch(database, statement))

    async def words(self) -> list[str]:
        """Return the committed words, without those of the schedule."""
        rows = await self.fetch(text("SELECT word FROM _test_counted ORDER BY word"))
        return [row["word"] for row in rows if row["word"] != TICK]

    async def ticks(self) -> int:
        """Return how often the scheduled job took effect."""
        rows = await self.fetch(text("SELECT word FROM _test_counted"))
        return sum(row["word"] == TICK for row in rows)

    async def statuses(self) -> dict[str, str]:
        """Return the status of each job by its id."""
        rows = await self.fetch(select(JOBS.c.id, JOBS.c.status))
        return {str(row["id"]): row["status"] for row in rows}

    async def wait_for(self, words: list[str], *, doing: Service) -> None:
        for _ in range(int(HANG_SECONDS / 0.1)):
            if await self.words() == words:
                return
            assert doing.process.poll() is None, doing.stdout + doing.stderr
            await asyncio.sleep(0.1)
        raise AssertionError(f"{await self.words()}\n{doing.stdout}\n{doing.stderr}")

    async def wait_for_status(self, job_id: str, status: str) -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while (await self.statuses())[job_id] != status:
                await asyncio.sleep(0.1)


async def execute(database_url: str, statements: tuple[str, ...]) -> None:
    async with (
        open_database(settings_for(database_url)) as database,
        database.probe() as connection,
    ):
        for statement in statements:
            await connection.execute(text(statement))
