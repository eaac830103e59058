"""The queue. Jobs are enqueued after the commit, so a rolled-back request enqueues none.

The response does not depend on the queue. While Redis is down, jobs are lost and logged. Write work
that must not be lost to a table, in the transaction.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import Any, Protocol, cast

import structlog
from opentelemetry.propagate import inject  # option: tracing
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import get_contextvars

from app.db.session import after_commit
from app.jobs.definition import Job, Message
from app.jobs.worker_context import WorkerConfig

log = structlog.get_logger()

SEND_SECONDS = 0.5  # maximum delay of a response while Redis does not answer
# Each is a QueueBackend. The first one is used.
BACKENDS = [
    "app.jobs.taskiq_worker",  # option: taskiq
    "app.jobs.celery_worker",  # option: celery
]

Send = Callable[[Message], Awaitable[None]]


class QueueBackend(Protocol):
    """A queue library."""

    def open_sender(
        self, redis_url: str, timeout_seconds: float
    ) -> AbstractAsyncContextManager[Send]:
        """Open a function that puts a message into the queue, or raises the library's error."""

    def run_worker(self, config: WorkerConfig) -> None:
        """Run jobs until SIGTERM. Running jobs then get `graceful_timeout_seconds`."""


def load_backend() -> QueueBackend:
    return cast(QueueBackend, import_module(BACKENDS[0]))


class Queue:
    """The queue that requests put jobs into.

    Args:
        send: of a backend. None without REDIS_URL: every job is then lost and logged.
        timeout_seconds: the longest wait for Redis.
    """

    def __init__(self, send: Send | None, timeout_seconds: float = SEND_SECONDS) -> None:
        self.is_connected = send is not None
        self._send = send
        self._timeout_seconds = timeout_seconds

    def enqueue(self, session: AsyncSession, job: Job, /, *, key: str, **arguments: Any) -> None:
        """Put a job into the queue as soon as the session's transaction is committed.

        Args:
            session: the transaction that the job belongs to.
            job: the job.
            key: of several messages with the same key, one takes effect.
            arguments: the arguments of the job, sent as JSON. None can be named `key`.
        """
        request_id = get_contextvars().get("request_id")
        message = Message(job.name, f"{job.name}:{key}", arguments, request_id)
        inject(message.trace_context)  # option: tracing
        after_commit(session, partial(self.send, message))

    async def send(self, message: Message) -> bool:
        """Put a message into the queue now. If that fails, log the message and return False."""
        reason = "REDIS_URL is not set"
        if self._send is not None:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._send(message)
            except TimeoutError:
                reason = f"no answer within {self._timeout_seconds:g} s"
            except Exception as error:  # noqa: BLE001 - the response does not depend on the queue
                cause = error.__cause__ or error  # both libraries wrap the error of the client
                reason = f"{type(cause).__name__}: {cause}"
            else:
                return True
        log.error(
            "job not enqueued",
            job=message.job,
            job_key=message.key,
            arguments=message.arguments,
            reason=reason,
        )
        return False


@asynccontextmanager
async def open_queue(redis_url: SecretStr | None) -> AsyncIterator[Queue]:
    """Open the queue. It connects on first use.

    Args:
        redis_url: the URL of Redis. Without it the queue accepts nothing, and logs each job.
    """
    if redis_url is None:
        yield Queue(None)
        return
    async with load_backend().open_sender(redis_url.get_secret_value(), SEND_SECONDS) as send:
        yield Queue(send)
