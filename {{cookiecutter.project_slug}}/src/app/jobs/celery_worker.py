"""Run jobs with Celery on Redis: one job at a time in each process, which has an event loop.

A message is acknowledged when its job is settled. A message of a killed worker goes to another one
after a time that is longer than any attempt and pause.
"""

import asyncio
import logging
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from threading import Timer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog
from celery import Celery, Task, signals
from celery.exceptions import Reject
from redis import Redis

from app.jobs.attempts import attempt
from app.jobs.definition import MAX_PAUSE_SECONDS, Job, Message
from app.jobs.process import BEAT_SECONDS, TIMEOUT_SECONDS, heartbeat
from app.jobs.queue import Send
from app.jobs.registry import find_jobs
from app.jobs.worker_context import WorkerConfig
from app.service_info import SERVICE_NAME

log = structlog.get_logger()

LEASE_MARGIN_SECONDS = 30.0
HARD_LIMIT_MARGIN_SECONDS = (
    10.0  # Celery then kills the process of a job that blocks its loop, and drops the job
)


def create_celery_app(url: str, timeout_seconds: float) -> Celery:
    longest = max((job.timeout_seconds for job in find_jobs().values()), default=0)
    return Celery(
        SERVICE_NAME,
        broker=_broker_url(url),
        set_as_current=False,
        config_source={
            "broker_connection_retry_on_startup": True,
            "broker_transport_options": {
                "global_keyprefix": f"{SERVICE_NAME}:celery:",  # other services may use this Redis
                "visibility_timeout": longest + MAX_PAUSE_SECONDS + LEASE_MARGIN_SECONDS,
                "unacked_mutex_expire": 10,  # seconds; its owner may have been killed
                "unacked_restore_interval": 2,
                "unacked_restore_throttle": 1,
                "socket_timeout": timeout_seconds,
                "socket_connect_timeout": timeout_seconds,
                "max_retries": 1,
            },
            "broker_use_ssl": url.startswith("rediss") and {"ssl_cert_reqs": ssl.CERT_REQUIRED},
            "task_acks_late": True,
            "task_default_queue": "jobs",
            "task_ignore_result": True,
            "task_reject_on_worker_lost": True,
            "worker_enable_remote_control": False,
            "worker_prefetch_multiplier": 1,
            "worker_proc_alive_timeout": 30.0,
            "worker_redirect_stdouts": False,
        },
    )


def _broker_url(url: str) -> str:
    """Return the URL in kombu's form, which has another scheme and parameter for sockets."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.path}?virtual_host={database}"


@asynccontextmanager
async def open_sender(redis_url: str, timeout_seconds: float) -> AsyncIterator[Send]:
    app = create_celery_app(redis_url, timeout_seconds)

    async def send(message: Message) -> None:
        await asyncio.to_thread(app.send_task, message.job, args=[asdict(message)], retry=False)

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
        opening = self._stack.enter_async_context(self._config.open_context(1))
        self._context = self._runner.run(opening)

    def close(self, **_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def register(self, app: Celery, job: Job) -> None:
        def run(task: Task, message: dict[str, Any]) -> None:
            number = task.request.retries + 1
            pause = self._runner.run(attempt(self._context, job, Message(**message), number))
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


async def _check_context(config: WorkerConfig) -> None:
    """Open and close the resources once.

    Celery ignores an error of `JobProcess.open`, and acknowledges every job without running it.
    """
    async with config.open_context(1):
        pass


def run_worker(config: WorkerConfig) -> None:
    logging.getLogger("celery").setLevel(logging.WARNING)  # attempt() logs the same with fields
    app = create_celery_app(config.redis_url, TIMEOUT_SECONDS)
    process = JobProcess(config)
    signals.worker_process_init.connect(process.open, weak=False)
    signals.worker_process_shutdown.connect(process.close, weak=False)
    # Celery configures no logging if this signal has a receiver.
    signals.setup_logging.connect(lambda **_: None, weak=False)
    for job in find_jobs().values():
        process.register(app, job)
    asyncio.run(_check_context(config))
    worker = app.Worker(
        concurrency=config.concurrency,
        quiet=True,
        without_gossip=True,
        without_heartbeat=True,
        without_mingle=True,
    )
    redis = Redis.from_url(config.redis_url, socket_timeout=TIMEOUT_SECONDS)

    def beat() -> None:
        with heartbeat("worker"):
            redis.ping()

    def limit_shutdown(how: str, **_: object) -> None:
        # On SIGTERM Celery waits for running jobs, without a limit. Its own limit,
        # `worker_soft_shutdown_timeout`, is always waited for, also if all jobs end before.
        if how == "Warm":
            timer = Timer(config.graceful_timeout_seconds, hand_back)
            timer.daemon = True
            timer.start()

    def hand_back() -> None:
        if jobs := len(worker.state.active_requests):
            log.warning("jobs handed back", jobs=jobs)
        os.kill(os.getpid(), signal.SIGQUIT)  # Celery cancels running jobs and requeues them

    worker.timer.call_repeatedly(BEAT_SECONDS, beat)
    signals.worker_shutting_down.connect(limit_shutdown, weak=False)
    # Celery's signal handlers print to it, and every line of the log is JSON.
    sys.__stdout__ = None  # type: ignore[misc]  # Python documents that it may be None
    log.info("worker started", jobs=sorted(find_jobs()))
    worker.start()
    log.info("worker stopped")
    sys.exit(worker.exitcode)
