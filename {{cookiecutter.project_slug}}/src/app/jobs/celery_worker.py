"""Run jobs with Celery on Redis: one job at a time in each process, which has an event loop.

A message is acknowledged when its job is settled. A message of a killed worker goes to another one
after a time that is longer than any attempt and pause.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from threading import Timer
from typing import Any

import structlog
from celery import Celery, Task, bootsteps
from celery.beat import Scheduler, Service
from celery.exceptions import Reject
from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_shutting_down,
)
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from app.jobs.attempts import attempt
from app.jobs.celery_app import create_celery_app
from app.jobs.definition import Job, Message
from app.jobs.heartbeat import BEAT_SECONDS, Heartbeat
from app.jobs.queue import SEND_SECONDS, QueueUnavailable, Send
from app.jobs.registry import find_jobs
from app.jobs.worker_context import WorkerConfig

log = structlog.get_logger()

TIMEOUT_SECONDS = 5.0  # of connecting, and of every command
HARD_LIMIT_MARGIN_SECONDS = 10.0  # Celery then kills the process of a job that blocks its loop


@asynccontextmanager
async def open_sender(redis_url: str) -> AsyncIterator[Send]:
    app = create_celery_app(redis_url, timeout_seconds=SEND_SECONDS)

    def send_now(message: Message) -> None:
        app.send_task(message.job, args=[asdict(message)], retry=False)

    async def send(message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await asyncio.to_thread(send_now, message)
        except (OperationalError, RedisError, OSError, TimeoutError) as error:
            raise QueueUnavailable(f"{type(error).__name__}: {error}") from error

    try:
        yield send
    finally:
        app.close()


class JobProcess:
    """The event loop and the resources of a process of the pool."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._stack = AsyncExitStack()

    def open(self, **_: object) -> None:
        """Open them after the fork, because processes cannot share a loop or a connection."""
        self._runner = asyncio.Runner()
        self._context = self._runner.run(
            self._stack.enter_async_context(self._config.open_context(1))
        )

    def close(self, **_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def register(self, app: Celery, job: Job) -> None:
        def run(task: Task, message: dict[str, Any]) -> None:
            number = task.request.retries + 1
            pause = self._runner.run(attempt(self._context, job, Message.of(message), number))
            if pause is not None:
                try:
                    task.retry(countdown=pause)
                except Reject as error:  # Redis is unavailable, and Celery would drop the message
                    raise Reject(error.reason, requeue=True) from error

        app.task(
            run,
            name=job.name,
            bind=True,
            max_retries=job.attempts,
            time_limit=job.timeout_seconds + HARD_LIMIT_MARGIN_SECONDS,
        )


def run_worker(config: WorkerConfig) -> None:
    logging.getLogger("celery").setLevel(logging.WARNING)  # attempt() logs the same with fields
    app = create_celery_app(config.redis_url, timeout_seconds=TIMEOUT_SECONDS)
    process = JobProcess(config)
    worker_process_init.connect(process.open, weak=False)
    worker_process_shutdown.connect(process.close, weak=False)
    setup_logging.connect(_keep_logging, weak=False)
    for job in find_jobs().values():
        process.register(app, job)
    app.steps["worker"].add(_beating("worker", config.redis_url))
    worker = app.Worker(
        concurrency=config.concurrency,
        quiet=True,
        without_gossip=True,
        without_heartbeat=True,
        without_mingle=True,
    )

    def limit_shutdown(how: str, **_: object) -> None:
        if how == "Warm":  # SIGTERM: Celery waits for running jobs, without a limit
            timer = Timer(config.graceful_timeout_seconds, hand_back)
            timer.daemon = True
            timer.start()

    def hand_back() -> None:
        if jobs := len(worker.state.active_requests):
            log.warning("jobs handed back", jobs=jobs)
        os.kill(os.getpid(), signal.SIGQUIT)  # Celery cancels running jobs and requeues them

    worker_shutting_down.connect(limit_shutdown, weak=False)
    # Celery's signal handlers print to it, and every line of the log is JSON.
    sys.__stdout__ = None  # type: ignore[misc]  # Python documents that it may be None
    log.info("worker started", jobs=sorted(find_jobs()))
    worker.start()
    log.info("worker stopped")
    sys.exit(worker.exitcode)


def _keep_logging(**_: object) -> None:
    """Do nothing. Celery configures no logging if its signal `setup_logging` has a receiver."""


def _beating(name: str, redis_url: str) -> type[bootsteps.StartStopStep]:
    heartbeat = Heartbeat(name)
    redis = Redis.from_url(redis_url, socket_timeout=TIMEOUT_SECONDS)

    class Beating(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        requires = ("celery.worker.components:Timer",)

        def start(self, parent: Any) -> None:
            parent.timer.call_repeatedly(BEAT_SECONDS, _beat, (heartbeat, redis))

    return Beating


def _beat(heartbeat: Heartbeat, redis: Redis) -> None:
    """Touch the heartbeat if Redis answers."""
    try:
        redis.ping()
        heartbeat.beat()
    except RedisError as error:
        log.warning("no heartbeat", reason=f"{type(error).__name__}: {error}")


class BeatingScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types
    """Celery's scheduler in memory, which needs no file, with a heartbeat."""

    heartbeat: Heartbeat
    redis: Redis

    def tick(self, *args: Any, **kwargs: Any) -> float:
        _beat(self.heartbeat, self.redis)
        interval: float = super().tick(*args, **kwargs)
        return interval


def run_scheduler(redis_url: str) -> None:
    BeatingScheduler.heartbeat = Heartbeat("scheduler")
    BeatingScheduler.redis = Redis.from_url(redis_url, socket_timeout=TIMEOUT_SECONDS)
    app = create_celery_app(redis_url, timeout_seconds=TIMEOUT_SECONDS)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    due = {job.name: job.cron for job in find_jobs().values() if job.cron}
    log.info("scheduler started", jobs=due)
    Service(app, scheduler_cls=BeatingScheduler).start()
    log.info("scheduler stopped")
