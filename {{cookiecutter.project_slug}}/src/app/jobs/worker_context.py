"""The resources and the configuration of a process that runs jobs."""

import asyncio
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from opentelemetry.trace import Tracer  # option: tracing
from pydantic import SecretStr  # option: celery
from sqlalchemy import Row, Update

from app.db.session import Database
from app.db.settings import DatabaseSettings
from app.jobs.batches import Batches
from app.jobs.definition import Job
from app.jobs.lazy_session import LazySessions
from app.jobs.states import START, SUCCEED_ALL
from app.metrics.settings import MetricsSettings  # option: metrics
from app.web.settings import WebSettings

Count = Callable[[str, str, float], None]


@dataclass(frozen=True)
class WorkerContext:
    """The resources of an attempt.

    Args:
        database: with a connection for each concurrent job, and one for their progress.
        jobs: by name.
        worker_id: in the table of workers.
        count: called with the name, the outcome and the seconds of each attempt.

    Attributes:
        sessions: of jobs.
        starts: sets jobs to running, and counts the attempt.
        successes: ends jobs that are running.
    """

    database: Database
    jobs: Mapping[str, Job]
    worker_id: uuid.UUID
    count: Count = lambda _job_name, _outcome, _seconds: None
    tracer: Tracer | None = None  # option: tracing

    @cached_property
    def sessions(self) -> LazySessions:
        return LazySessions(self.database)

    @cached_property
    def starts(self) -> Batches:
        return Batches(partial(self._execute, START, worker_id=self.worker_id))

    @cached_property
    def successes(self) -> Batches:
        return Batches(partial(self._execute, SUCCEED_ALL))

    async def _execute(
        self, statement: Update, job_ids: list[uuid.UUID], **values: object
    ) -> dict[uuid.UUID, Row[Any]]:
        async with self.database.read_connection() as connection:
            rows = await connection.execute(statement, {"job_ids": job_ids, **values})
            return {row.id: row for row in rows}


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration of a worker.

    Args:
        id: in the table of workers.
        jobs: by name.
        concurrency: the number of concurrent jobs.
        port: of health checks and metrics; 0 is any free one.
        database: the settings of its connections.
        web: the address, and the time for running jobs after SIGTERM.
        open_context: opens the resources for this many concurrent jobs.
    """

    id: uuid.UUID
    jobs: Mapping[str, Job]
    concurrency: int
    port: int
    database: DatabaseSettings
    web: WebSettings
    metrics: MetricsSettings  # option: metrics
    redis_url: SecretStr | None  # option: celery
    open_context: Callable[[int], AbstractAsyncContextManager[WorkerContext]]


class Pulse:
    """Tells whether the part of a worker that starts jobs is alive.

    Attributes:
        age_seconds: the time since the last beat.
        is_stopping: SIGTERM was received, so no job starts.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self.beat()

    def beat(self) -> None:
        self._last = time.monotonic()

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self._last


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop
