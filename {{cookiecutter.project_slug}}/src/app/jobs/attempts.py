"""Run a job in one transaction with its idempotency record, within a time limit.

A job that is delivered twice takes effect once. The second worker waits for the transaction of the
first one. It runs the job only if that transaction was rolled back.
"""

import asyncio
import time
from contextlib import ExitStack

import structlog
from sqlalchemy.dialects.postgresql import insert
from structlog.contextvars import bound_contextvars

from app.db.session import Database
from app.jobs.definition import Job, Message, pause_after
from app.jobs.models import FinishedJob
from app.jobs.tracing import trace_attempt  # option: tracing
from app.jobs.worker_context import WorkerContext
from app.sentry.reporting import report_job  # option: sentry
from app.tracing.spans import fail  # option: tracing

log = structlog.get_logger()

_BEGIN = (
    insert(FinishedJob)
    .on_conflict_do_nothing(index_elements=[FinishedJob.key])
    .returning(FinishedJob)
)


async def attempt(context: WorkerContext, job: Job, message: Message, number: int) -> float | None:
    """Try once to run a job, and log the result.

    Args:
        context: the resources of the worker.
        job: the job.
        message: its arguments.
        number: the number of this attempt; the first is 1.

    Returns:
        Seconds until the next attempt; None if the job succeeded or has failed for good.
    """
    with ExitStack() as stack:
        if message.request_id:
            stack.enter_context(bound_contextvars(request_id=message.request_id))
        stack.enter_context(bound_contextvars(job=job.name, job_key=message.key))
        span = stack.enter_context(trace_attempt(context.tracer, job, message))  # option: tracing
        try:
            await _run(context.database, job, message)
        except Exception as error:
            fail(span, type(error).__qualname__)  # option: tracing
            if number >= job.attempts:  # a new version may allow fewer
                report_job(error, job.name)  # option: sentry
                log.exception("job failed", attempt=number, arguments=message.arguments)
                return None
            pause = pause_after(number)
            log.warning(
                "job will be retried",
                attempt=number,
                pause_seconds=round(pause, 1),
                reason=f"{type(error).__name__}: {error}",
            )
            return pause
    return None


async def attempt_until_settled(context: WorkerContext, job: Job, message: Message) -> None:
    """Try until the job succeeds or has failed for good."""
    number = 1
    while (pause := await attempt(context, job, message, number)) is not None:
        await asyncio.sleep(pause)
        number += 1


async def _run(database: Database, job: Job, message: Message) -> None:
    started = time.perf_counter()
    async with asyncio.timeout(job.timeout_seconds):
        if job.has_own_transactions:
            result = await job.run(database, **message.arguments)
        else:
            async with database.session() as session:
                record = await session.scalar(_BEGIN, {"key": message.key, "job": job.name})
                if record is None:
                    log.info("job was done before")
                    return
                record.result = result = await job.run(session, **message.arguments)
    duration_ms = round((time.perf_counter() - started) * 1000, 2)
    log.info("job done", result=result, duration_ms=duration_ms)
