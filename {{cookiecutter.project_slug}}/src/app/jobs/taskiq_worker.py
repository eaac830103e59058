"""Run jobs with taskiq: one process and one event loop for many concurrent jobs.

A message is acknowledged when its job is settled. If the process ends before, another worker gets
the message.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Annotated, Any

import structlog
from pydantic import ValidationError
from redis.exceptions import RedisError
from taskiq import Context, TaskiqDepends
from taskiq.acks import AcknowledgeType
from taskiq.kicker import AsyncKicker
from taskiq.receiver import Receiver

from app.jobs.attempts import attempt_until_settled
from app.jobs.definition import Job, Message
from app.jobs.process import BEAT_SECONDS, TIMEOUT_SECONDS, heartbeat, stop_on_signals
from app.jobs.queue import Send
from app.jobs.registry import find_jobs
from app.jobs.taskiq_stream import LeasedStreamBroker
from app.jobs.worker_context import WorkerConfig, WorkerContext

log = structlog.get_logger()


@asynccontextmanager
async def open_sender(redis_url: str, timeout_seconds: float) -> AsyncIterator[Send]:
    broker = LeasedStreamBroker(redis_url, timeout_seconds)

    async def send(message: Message) -> None:
        kicker: AsyncKicker[Any, Any] = AsyncKicker(message.job, broker, {})
        await kicker.kiq(asdict(message))

    try:
        yield send
    finally:
        await broker.shutdown()


def run_worker(config: WorkerConfig) -> None:
    logging.getLogger("taskiq").setLevel(logging.WARNING)  # attempt() logs the same with fields
    asyncio.run(_work(config))


async def _work(config: WorkerConfig) -> None:
    stop = stop_on_signals()
    broker = LeasedStreamBroker(config.redis_url, TIMEOUT_SECONDS)
    async with config.open_context(config.concurrency) as context:
        for job in find_jobs().values():
            _register(broker, job, context)
        receiver = Receiver(
            broker,
            validate_params=False,
            run_startup=False,
            max_async_tasks=config.concurrency,
            ack_type=AcknowledgeType.MANUAL,
            wait_tasks_timeout=config.graceful_timeout_seconds,
        )
        stopped = asyncio.Event()  # until then, leases of running jobs are renewed
        heartbeat_task = asyncio.create_task(_beat(broker, stopped))
        log.info("worker started", jobs=sorted(find_jobs()))
        try:
            await receiver.listen(stop)
        finally:
            stopped.set()
            await heartbeat_task
            await _hand_back(broker)
    await broker.shutdown()
    log.info("worker stopped")


def _register(broker: LeasedStreamBroker, job: Job, context: WorkerContext) -> None:
    async def run(message: dict[str, Any], received: Annotated[Context, TaskiqDepends()]) -> None:
        try:
            parsed = Message(**message)
        except ValidationError:  # of another version
            log.exception("job message dropped", job=job.name)
            await received.ack()
            return
        try:
            await attempt_until_settled(context, job, parsed)
        except asyncio.CancelledError:
            return  # not acknowledged: another worker gets the message
        await received.ack()

    broker.register_task(run, job.name)


async def _beat(broker: LeasedStreamBroker, stopped: asyncio.Event) -> None:
    """Renew the leases, and touch the heartbeat while Redis answers.

    The Redis client can lose a cancellation while it waits, so the caller sets an event instead.
    """
    while not stopped.is_set():
        with heartbeat("worker"):
            await broker.renew()
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), BEAT_SECONDS)


async def _hand_back(broker: LeasedStreamBroker) -> None:
    """Cancel jobs that did not finish in time. Another worker repeats them."""
    if broker.held:
        log.warning("jobs handed back", jobs=len(broker.held))
    unfinished = asyncio.all_tasks() - {asyncio.current_task()}
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    with suppress(RedisError, OSError, TimeoutError):  # the leases end by themselves
        await broker.release()
