"""Run jobs with taskiq: one process and one event loop for many concurrent jobs.

A message is acknowledged when its job is settled. If the process ends before, another worker gets
the message.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import structlog
from redis.exceptions import RedisError
from taskiq import (
    AsyncBroker,
    Context,
    ScheduledTask,
    ScheduleSource,
    TaskiqDepends,
    TaskiqScheduler,
)
from taskiq.acks import AcknowledgeType
from taskiq.cli.scheduler.run import SchedulerLoop
from taskiq.exceptions import SendTaskError
from taskiq.kicker import AsyncKicker
from taskiq.receiver import Receiver

from app.jobs.attempts import attempt_until_settled
from app.jobs.definition import Job, Message, due_message
from app.jobs.heartbeat import BEAT_SECONDS, Heartbeat
from app.jobs.queue import SEND_SECONDS, QueueUnavailable, Send
from app.jobs.registry import find_jobs
from app.jobs.taskiq_stream import LeasedStreamBroker
from app.jobs.worker_context import WorkerConfig, WorkerContext

log = structlog.get_logger()

TIMEOUT_SECONDS = 5.0  # of connecting, and of every command


@asynccontextmanager
async def open_sender(redis_url: str) -> AsyncIterator[Send]:
    broker = LeasedStreamBroker(redis_url, timeout_seconds=SEND_SECONDS)

    async def send(message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                kicker: AsyncKicker[Any, Any] = AsyncKicker(message.job, broker, {})
                await kicker.kiq(asdict(message))
        except (SendTaskError, TimeoutError) as error:
            reason = error.__cause__ or error
            raise QueueUnavailable(f"{type(reason).__name__}: {reason}") from error

    try:
        yield send
    finally:
        await broker.connection_pool.disconnect()


def run_worker(config: WorkerConfig) -> None:
    logging.getLogger("taskiq").setLevel(logging.WARNING)  # attempt() logs the same with fields
    asyncio.run(_work(config))


def run_scheduler(redis_url: str) -> None:
    logging.getLogger("taskiq").setLevel(logging.WARNING)
    asyncio.run(_schedule(redis_url))


async def _work(config: WorkerConfig) -> None:
    stop = _stop_on_signals()
    broker = LeasedStreamBroker(config.redis_url, timeout_seconds=TIMEOUT_SECONDS)
    running: set[asyncio.Task[Any]] = set()
    async with config.open_context(config.concurrency) as context:
        for job in find_jobs().values():
            _register(broker, job, context, running)
        receiver = Receiver(
            broker,
            validate_params=False,
            run_startup=False,
            max_async_tasks=config.concurrency,
            ack_type=AcknowledgeType.MANUAL,
            wait_tasks_timeout=config.graceful_timeout_seconds,
        )
        is_over = asyncio.Event()  # until then, leases of running jobs are renewed
        beating = asyncio.create_task(_beat(Heartbeat("worker"), broker.renew, is_over))
        log.info("worker started", jobs=sorted(find_jobs()))
        try:
            await receiver.listen(stop)
        finally:
            is_over.set()
            await beating
            await _hand_back(broker, running)
    await broker.connection_pool.disconnect()
    log.info("worker stopped")


def _register(
    broker: AsyncBroker, job: Job, context: WorkerContext, running: set[asyncio.Task[Any]]
) -> None:
    async def run(message: dict[str, Any], received: Annotated[Context, TaskiqDepends()]) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        task.add_done_callback(running.discard)
        try:
            await attempt_until_settled(context, job, Message.of(message))
        except asyncio.CancelledError:
            return  # not acknowledged: another worker gets the message
        await received.ack()

    broker.register_task(run, job.name)


async def _hand_back(broker: LeasedStreamBroker, running: set[asyncio.Task[Any]]) -> None:
    """Cancel jobs that did not finish in time. Another worker repeats them."""
    unfinished = list(running)
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    if unfinished:
        log.warning("jobs handed back", jobs=len(unfinished))
    with suppress(RedisError, OSError, TimeoutError):  # the leases end by themselves
        await broker.release()


async def _schedule(redis_url: str) -> None:
    stop = _stop_on_signals()
    broker = LeasedStreamBroker(redis_url, timeout_seconds=TIMEOUT_SECONDS)
    due = DueJobs()
    loop = SchedulerLoop(Scheduler(broker, [due]))
    scheduling = asyncio.create_task(
        loop.run(update_interval=timedelta(hours=1), loop_interval=None)
    )
    beating = asyncio.create_task(_beat(Heartbeat("scheduler"), broker.renew, stop))
    log.info("scheduler started", jobs={task.task_name: task.cron for task in due.tasks})
    await asyncio.wait((scheduling, beating), return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    scheduling.cancel()
    results = await asyncio.gather(scheduling, beating, return_exceptions=True)
    await broker.connection_pool.disconnect()
    for result in results:
        if isinstance(result, Exception):
            raise result
    log.info("scheduler stopped")


class DueJobs(ScheduleSource):
    """The jobs that have a schedule."""

    def __init__(self) -> None:
        self.tasks = [
            ScheduledTask(task_name=job.name, labels={}, args=[], kwargs={}, cron=job.cron)
            for job in find_jobs().values()
            if job.cron
        ]

    async def get_schedules(self) -> list[ScheduledTask]:
        return self.tasks


class Scheduler(TaskiqScheduler):
    """Send each due job with a key for its minute, so that a second scheduler has no effect."""

    async def on_ready(self, source: ScheduleSource, task: ScheduledTask) -> None:
        message = due_message(task.task_name)
        task.args = [asdict(message)]
        try:
            await super().on_ready(source, task)
            log.info("job enqueued", job=message.job, job_key=message.key)
        except SendTaskError as error:
            reason = f"{type(error.__cause__).__name__}: {error.__cause__}"
            log.error("job not enqueued", job=message.job, job_key=message.key, reason=reason)  # noqa: TRY400 - a traceback adds nothing to the reason


async def _beat(
    heartbeat: Heartbeat, prove: Callable[[], Awaitable[None]], stop: asyncio.Event
) -> None:
    """Touch the heartbeat while Redis answers, until the event is set.

    The Redis client can lose a cancellation while it waits, so the caller sets an event instead.
    """
    while not stop.is_set():
        try:
            await prove()
            heartbeat.beat()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("no heartbeat", reason=f"{type(error).__name__}: {error}")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), BEAT_SECONDS)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop
