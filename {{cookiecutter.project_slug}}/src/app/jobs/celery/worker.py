"""Run jobs with Celery on Redis: one job at a time in each process, which has an event loop.

Redis holds only the ids of jobs. If it loses them, the relay sends them again.
"""

import asyncio
import logging
import os
import signal
import ssl
import sys
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from threading import Timer
from urllib.parse import parse_qs, urlsplit

import click
import structlog
from celery import Celery, bootsteps, signals

from app.errors import Unavailable
from app.jobs.attempts import attempt
from app.jobs.background import run_in_background
from app.jobs.celery.relay import Relay
from app.jobs.event_loop import create_runner
from app.jobs.worker_context import Pulse, WorkerConfig
from app.service_info import SERVICE_NAME

log = structlog.get_logger()

TASK = "run_job"
TIMEOUT_SECONDS = 5.0  # of connecting to Redis, and of every command
PULSE_SECONDS = 1.0
# Celery then kills the process of a job that blocks its event loop, and the relay sends it again.
HARD_LIMIT_MARGIN_SECONDS = 10.0
VISIBILITY_MARGIN_SECONDS = 60.0  # then Redis delivers a message again that has no end


def create_celery_app(url: str, longest_seconds: float) -> Celery:
    """Create the application of Celery.

    Args:
        url: of Redis.
        longest_seconds: the largest time limit of all jobs.
    """
    return Celery(
        SERVICE_NAME,
        broker=_broker_url(url),
        set_as_current=False,
        config_source={
            "broker_connection_retry_on_startup": True,
            "broker_transport_options": {
                "global_keyprefix": f"{SERVICE_NAME}:celery:",  # other services may use this Redis
                "visibility_timeout": longest_seconds + VISIBILITY_MARGIN_SECONDS,
                "socket_timeout": TIMEOUT_SECONDS,
                "socket_connect_timeout": TIMEOUT_SECONDS,
                "max_retries": 1,
            },
            "broker_use_ssl": url.startswith("rediss") and {"ssl_cert_reqs": ssl.CERT_REQUIRED},
            # If the process of a job is killed, Celery gives the message to another one at once.
            "task_acks_late": True,
            "task_reject_on_worker_lost": True,
            "task_default_queue": "jobs",
            "task_ignore_result": True,
            "task_time_limit": longest_seconds + HARD_LIMIT_MARGIN_SECONDS,
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


class JobProcess:
    """The event loop and the resources of a process of the pool."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._stack = AsyncExitStack()

    def open(self, **_: object) -> None:
        """Open them after the fork, because processes cannot share a loop or a connection."""
        self._runner = create_runner()
        opening = self._stack.enter_async_context(self._config.open_context(1))
        self._context = self._runner.run(opening)

    def close(self, **_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def run_job(self, job_id: str) -> None:
        with suppress(Unavailable):  # it is logged, and the relay sends the job again
            self._runner.run(attempt(self._context, uuid.UUID(job_id)))


async def _check_context(config: WorkerConfig) -> None:
    """Open and close the resources once.

    Celery ignores an error of `JobProcess.open`, and acknowledges every job without running it.
    """
    async with config.open_context(1):
        pass


def run_worker(config: WorkerConfig) -> None:
    logging.getLogger("celery").setLevel(logging.WARNING)  # attempt() logs the same with fields
    if config.redis_url is None:
        raise click.ClickException("REDIS_URL is missing: set it to the Redis that Celery uses")
    longest = max(job.timeout_seconds for job in config.jobs.values())
    app = create_celery_app(config.redis_url.get_secret_value(), longest)
    process, pulse = JobProcess(config), Pulse()
    app.task(process.run_job, name=TASK)
    signals.worker_process_init.connect(process.open, weak=False)
    signals.worker_process_shutdown.connect(process.close, weak=False)
    # Celery configures no logging if this signal has a receiver.
    signals.setup_logging.connect(lambda **_: None, weak=False)
    asyncio.run(_check_context(config))
    relay = Relay(config.database, config.jobs, partial(_send, app))
    stack = ExitStack()

    class Background(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        """Starts the thread after the processes of the pool, because a fork copies no thread."""

        requires = {"celery.worker.components:Pool"}  # noqa: RUF012 - Celery reads it as declared

        def start(self, _worker: object) -> None:
            stack.enter_context(run_in_background(config, pulse, relay.run))

    app.steps["worker"].add(Background)
    worker = app.Worker(
        concurrency=config.concurrency,
        quiet=True,
        without_gossip=True,
        without_heartbeat=True,
        without_mingle=True,
    )

    def limit_shutdown(how: str, **_: object) -> None:
        # On SIGTERM Celery waits for running jobs, without a limit. Its own limit,
        # `worker_soft_shutdown_timeout`, is always waited for, also if all jobs end before.
        pulse.is_stopping = True
        if how == "Warm":
            # Celery cancels running jobs on SIGQUIT.
            end = (os.getpid(), signal.SIGQUIT)
            timer = Timer(config.web.graceful_timeout_seconds, os.kill, end)
            timer.daemon = True
            timer.start()

    worker.timer.call_repeatedly(PULSE_SECONDS, pulse.beat)
    signals.worker_shutting_down.connect(limit_shutdown, weak=False)
    # Celery's signal handlers print to it, and every line of the log is JSON.
    sys.__stdout__ = None  # type: ignore[misc]  # Python documents that it may be None
    log.info("worker started", jobs=sorted(config.jobs))
    with stack:
        worker.start()
    log.info("worker stopped")
    sys.exit(worker.exitcode)


def _send(app: Celery, job_ids: Sequence[uuid.UUID]) -> None:
    with app.producer_or_acquire() as producer:  # one connection for all
        for job_id in job_ids:
            app.send_task(TASK, args=[str(job_id)], retry=False, producer=producer)
