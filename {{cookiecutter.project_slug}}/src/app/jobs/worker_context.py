"""The resources of a process that runs jobs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass

from app.db.session import Database
from app.jobs.definition import Job, Message

# Surrounds each attempt. It yields a function that is called with the error of a failed attempt.
JobMiddleware = Callable[[Job, Message], AbstractContextManager[Callable[[Exception], None]]]
# Called with the error of the last attempt, and with the name of the job.
FailureHook = Callable[[Exception, str], None]


@dataclass(frozen=True)
class WorkerContext:
    """The resources that jobs use.

    Args:
        database: has a connection for each concurrent job.
        middleware: surrounds each attempt, the first one outermost.
        on_failure: called when a job has failed for good.
    """

    database: Database
    middleware: Sequence[JobMiddleware] = ()
    on_failure: Sequence[FailureHook] = ()


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
