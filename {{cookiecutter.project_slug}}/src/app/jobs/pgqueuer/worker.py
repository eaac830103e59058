"""Run jobs with PgQueuer: one process and one event loop for many concurrent jobs.

PgQueuer renews a lease of each message that it holds. If a worker is killed, the lease of its
messages expires, and another worker takes them.
"""

import asyncio
import logging
import uuid
from contextlib import suppress
from datetime import timedelta

import structlog
from asyncpg import InterfaceError, InternalClientError, PostgresError
from pgqueuer import Job as Message
from pgqueuer import Queries, QueueManager, RetryRequested
from pgqueuer.errors import FailingListenerError
from sqlalchemy.exc import DBAPIError

from app.db.schema_version import MigrationError, check_schema_version
from app.errors import Unavailable
from app.jobs.attempts import attempt
from app.jobs.background import run_in_background
from app.jobs.direct_connection import open_direct_connection
from app.jobs.event_loop import create_runner
from app.jobs.worker_context import Pulse, WorkerConfig, stop_on_signals

log = structlog.get_logger()

LEASE_SECONDS = 20.0
POLL_SECONDS = 5.0  # PostgreSQL notifies of new jobs. This is for a lost notification.
PULSE_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
# asyncpg raises InternalClientError when the connection ends during a query.
UNAVAILABLE = (
    *(DBAPIError, FailingListenerError, InterfaceError, InternalClientError),
    *(OSError, PostgresError),
)


def run_worker(config: WorkerConfig) -> None:
    logging.getLogger("pgqueuer").setLevel(logging.CRITICAL)  # attempt() logs the same with fields
    with create_runner() as runner:
        runner.run(_Worker(config).run())


class _Worker:
    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._pulse = Pulse()
        self._slots = asyncio.Semaphore(config.concurrency)
        self._hand_back_at: float | None = None
        self._limits: set[asyncio.Timeout] = set()  # of the running jobs

    async def run(self) -> None:
        stop = stop_on_signals()
        async with self._config.open_context(self._config.concurrency) as context:
            self._context = context
            with run_in_background(self._config, self._pulse):
                log.info("worker started", jobs=sorted(self._config.jobs))
                pulse = asyncio.create_task(self._beat())
                while not stop.is_set():
                    try:
                        await self._work(stop)
                    except UNAVAILABLE as error:
                        reason = f"{type(error).__name__}: {error}"
                        log.warning("queue unavailable", reason=reason)
                    except (MigrationError, Unavailable):
                        pass  # it is logged
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), RECONNECT_SECONDS)
                pulse.cancel()
        log.info("worker stopped")

    async def _beat(self) -> None:
        while True:
            self._pulse.beat()
            await asyncio.sleep(PULSE_SECONDS)

    async def _work(self, stop: asyncio.Event) -> None:
        """Run jobs on one connection to the database, until it fails or `stop` is set."""
        await check_schema_version(self._context.database)
        async with open_direct_connection(self._config.database) as connection:
            manager = QueueManager(Queries.from_asyncpg_connection(connection))
            for job in self._config.jobs.values():
                register = manager.entrypoint(job.name, concurrency_limit=job.concurrency or 0)
                register(self._run_job)
            # PgQueuer requires at least twice the size of a batch.
            messages = max(2, self._config.concurrency)
            running = asyncio.create_task(
                manager.run(
                    dequeue_timeout=timedelta(seconds=POLL_SECONDS),
                    batch_size=messages // 2,
                    max_concurrent_tasks=messages,
                    shutdown_on_listener_failure=True,
                    heartbeat_timeout=timedelta(seconds=LEASE_SECONDS),
                    log_aggregation_interval=timedelta(0),
                )
            )
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                self._pulse.is_stopping = True
                manager.shutdown.set()
                await asyncio.wait({running}, timeout=self._config.web.graceful_timeout_seconds)
                self._hand_back()
            stopping.cancel()
            await running

    async def _run_job(self, message: Message) -> None:
        assert message.payload is not None
        job_id = uuid.UUID(message.payload.decode())
        async with self._slots:
            try:
                async with asyncio.timeout_at(self._hand_back_at) as limit:
                    self._limits.add(limit)
                    try:
                        pause = await self._attempt(job_id)
                    finally:
                        self._limits.remove(limit)
            except TimeoutError:
                if not limit.expired():  # the job's own
                    raise
                raise RetryRequested(timedelta(0), "the worker stops") from None
        if pause is not None:
            raise RetryRequested(timedelta(seconds=pause), "the attempt failed")

    def _hand_back(self) -> None:
        """Cancel the running jobs, and those that the worker has not started yet."""
        self._hand_back_at = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(self._hand_back_at)

    async def _attempt(self, job_id: uuid.UUID) -> float | None:
        try:
            return await attempt(self._context, job_id)
        except Unavailable:
            return RECONNECT_SECONDS
