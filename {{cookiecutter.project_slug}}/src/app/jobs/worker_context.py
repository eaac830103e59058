"""The resources of a process that runs jobs."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from opentelemetry.trace import Tracer  # option: tracing

from app.db.session import Database


@dataclass(frozen=True)
class WorkerContext:
    """The resources that jobs use."""

    database: Database  # with a connection for each concurrent job
    tracer: Tracer | None = None  # option: tracing


@dataclass(frozen=True)
class WorkerConfig:
    """The configuration of a worker.

    Args:
        redis_url: the URL of Redis.
        concurrency: the number of concurrent jobs.
        graceful_timeout_seconds: time for running jobs after SIGTERM.
        open_context: opens the resources, with this many connections to the database.
    """

    redis_url: str
    concurrency: int
    graceful_timeout_seconds: float
    open_context: Callable[[int], AbstractAsyncContextManager[WorkerContext]]
