"""Worker processes that run a copy of the source, with one queue library and shorter limits."""

import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.db.migrate import migrate
from app.db.session import open_database
from app.jobs.backend import BACKENDS
from app.jobs.definition import Job
from app.jobs.enqueue import enqueue
from conftest import settings_for
from postgres_server import Postgres
from processes import RESERVED, Service, add_feature, environment
from valkey_server import start_valkey  # option: celery

JOBS = '''
"""Jobs for a test."""

import asyncio
import time

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.definition import job


@job()
async def succeed(session: AsyncSession) -> None: ...


@job(attempts=1)
async def fail(session: AsyncSession) -> None:
    raise RuntimeError("of this test")


@job(timeout_seconds=600)
async def wait(session: AsyncSession) -> None:
    await asyncio.sleep(600)


@job()
async def block(session: AsyncSession) -> None:
    time.sleep(600)
'''
SHORTER = {
    "MAX_PULSE_SECONDS = 30.0": "MAX_PULSE_SECONDS = 5.0",
    "BEAT_SECONDS = 5.0": "BEAT_SECONDS = 0.5",
}


class WorkerCopies:
    """A database, the jobs of a test, and workers.

    Attributes:
        backend: the package of the queue library.
        postgres: the server of the database.
    """

    def __init__(
        self, backend: str, postgres: Postgres, variables: dict[str, str], stack: ExitStack
    ) -> None:
        self.backend = backend
        self.postgres = postgres
        self._variables = variables
        self._stack = stack

    def start(self, **variables: str) -> Service:
        """Start a worker. It is not forked: the metrics need the variables at their import."""
        command = [str(Path(sys.executable).parent / "app"), "worker"]
        env = environment(self.postgres.url, **self._variables, **variables)
        return self._stack.enter_context(Service(command, env))

    async def enqueue(self, name: str, **options: Any) -> None:
        """Enqueue a job of JOBS."""

        async def run(_session: object) -> None: ...

        job = Job(f"{RESERVED}.{name}", run, timeout_seconds=30, attempts=1)
        settings = settings_for(self.postgres.url)
        async with open_database(settings) as database, database.session() as session:
            await enqueue(session, job, **options)


def select_backend(
    backend: str, source: Path, monkeypatch: pytest.MonkeyPatch, shorter: dict[str, str]
) -> None:
    """Let a copy of the source, and this process, use one queue library.

    Args:
        backend: the package of the queue library.
        source: the copy, which this function changes.
        monkeypatch: lets this process enqueue for the queue library.
        shorter: replacements for long times in the copy.
    """
    monkeypatch.setattr("app.jobs.backend.BACKENDS", [backend])
    for path in (source / "app" / "jobs").rglob("*.py"):
        content = path.read_text()
        for long, short in shorter.items():
            content = content.replace(long, short)
        if path.name == "backend.py":
            for other in set(BACKENDS) - {backend}:
                content = content.replace(f'    "{other}",', "")
        path.write_text(content)


@asynccontextmanager
async def open_workers(
    backend: str, postgres: Postgres, source: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WorkerCopies]:
    """Migrate a database, and yield the workers of one queue library.

    Args:
        backend: the package of the queue library.
        postgres: the server with an empty database.
        source: the copy, which this function changes.
        monkeypatch: lets this process enqueue for the queue library.
    """
    await migrate(settings_for(postgres.url))
    add_feature(source, "jobs", JOBS)
    select_backend(backend, source, monkeypatch, SHORTER)
    variables = {"PYTHONPATH": str(source), "TMPDIR": str(source)}
    with ExitStack() as stack:
        if backend == "app.jobs.celery":  # option: celery
            valkey = stack.enter_context(start_valkey())  # option: celery
            variables["REDIS_URL"] = valkey.url  # option: celery
        yield WorkerCopies(backend, postgres, variables, stack)


@pytest.fixture(params=BACKENDS)
async def workers(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[WorkerCopies]:
    async with open_workers(request.param, postgres, source, monkeypatch) as workers:
        yield workers
