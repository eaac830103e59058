"""Enqueuing: after the commit, so that what was rolled back enqueues nothing.

The answer does not depend on the queue: while Redis is away, jobs are lost, and the log says
which. What must not be lost even then belongs into a table, in the transaction.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import Annotated, Any, Protocol, cast

import structlog
from fastapi import Depends, Request

from app.db.database import Transaction
from app.jobs.definition import Job, Message
from app.logging.setup import current_request_id
from app.settings import Settings
from app.tracing.http import W3C  # option: tracing

log = structlog.get_logger()

SEND_SECONDS = 0.5  # at most, added to a request while Redis does not answer
# Each is a Library; the first one is used.
BACKENDS = [
    "app.jobs.taskiq_worker",  # option: taskiq
    "app.jobs.celery_worker",  # option: celery
]

Send = Callable[[Message], Awaitable[None]]


class QueueUnavailable(Exception):
    """Redis did not take a message in time."""


class QueueBackend(Protocol):
    """What a library for queues is used for."""

    def open_sender(self, settings: Settings) -> AbstractAsyncContextManager[Send]:
        """What is yielded puts a message into the queue, or raises QueueUnavailable."""

    def run_worker(self, settings: Settings) -> None:
        """Do jobs until SIGTERM; then those that run get `graceful_timeout_seconds`."""

    def run_scheduler(self, settings: Settings) -> None:
        """Enqueue jobs when they are due, until SIGTERM."""


def load_backend() -> QueueBackend:
    return cast(QueueBackend, import_module(BACKENDS[0]))


class Queue:
    """Where requests put jobs."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def enqueue(self, transaction: Transaction, job: Job, *, key: str, **arguments: Any) -> None:
        """Put a job into the queue once the transaction is committed.

        Args:
            transaction: what it belongs to.
            job: what is to be done.
            key: of all its messages with the same key, one is done.
            arguments: for the job; they travel as JSON.
        """
        message = Message(job.name, f"{job.name}:{key}", arguments, current_request_id())
        W3C.inject(message.trace_context)  # option: tracing
        transaction.after_commit(lambda: self._enqueue(message))

    async def _enqueue(self, message: Message) -> None:
        try:
            await self._send(message)
        except QueueUnavailable as error:
            log.error(  # noqa: TRY400 - the reason says it all
                "job not enqueued",
                job=message.job,
                job_key=message.key,
                arguments=message.arguments,
                reason=str(error),
            )


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[Queue]:
    """Connect on first use; without REDIS_URL, a queue that takes nothing and says so."""
    if settings.redis_url is None:
        yield Queue(_refuse)
        return
    async with load_backend().open_sender(settings) as send:
        yield Queue(send)


async def _refuse(_message: Message) -> None:
    raise QueueUnavailable("REDIS_URL is not set")


async def get_queue(request: Request) -> Queue:
    queue: Queue = request.state.queue
    return queue


QueueDep = Annotated[Queue, Depends(get_queue)]
