"""Enqueue jobs when they are due.

The messages of several schedulers have the same key in a minute, so each job takes effect once.
"""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from redis.asyncio import Redis

from app.jobs.definition import due_message, is_due
from app.jobs.process import BEAT_SECONDS, TIMEOUT_SECONDS, heartbeat, stop_on_signals
from app.jobs.queue import Queue, load_backend
from app.jobs.registry import find_jobs

log = structlog.get_logger()


async def run_scheduler(redis_url: str) -> None:
    """Enqueue due jobs until SIGTERM. At the start, jobs of the current minute are due."""
    jobs = {job.name: job.cron for job in find_jobs().values() if job.cron}
    last_minute = None
    stop = stop_on_signals()
    async with (
        load_backend().open_sender(redis_url, TIMEOUT_SECONDS) as send,
        Redis.from_url(
            redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        ) as redis,
    ):
        log.info("scheduler started", jobs=jobs)
        queue = Queue(send, TIMEOUT_SECONDS)
        while not stop.is_set():
            minute = datetime.now(UTC).replace(second=0, microsecond=0)
            if minute != last_minute:
                due = [name for name, cron in jobs.items() if is_due(cron, minute)]
                sent = await asyncio.gather(
                    *(queue.send(due_message(name, minute)) for name in due)
                )
                if all(sent):  # otherwise send again soon: a repeated message has no effect
                    last_minute = minute
            with heartbeat("scheduler"):
                await redis.ping()
            until_next_minute = 60 - datetime.now(UTC).second
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(BEAT_SECONDS, until_next_minute))
    log.info("scheduler stopped")
