"""Attempts at a job, within a time limit. The row of the job records each one."""

import asyncio
import time
import uuid
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Row, Update
from structlog.contextvars import bound_contextvars

from app.db.session import Database
from app.errors import BadGateway, GatewayTimeout, ServiceError, Unavailable
from app.jobs import states
from app.jobs.definition import Job, pause_after
from app.jobs.progress import RUNNING_JOB, RunningJob
from app.jobs.tracing import trace_attempt  # option: tracing
from app.jobs.worker_context import WorkerContext
from app.sentry.reporting import report_job  # option: sentry
from app.tracing.spans import fail  # option: tracing

log = structlog.get_logger()

UNKNOWN_PAUSE_SECONDS = 10.0  # for a worker of the version that has the job
TEMPORARY = (BadGateway, GatewayTimeout, Unavailable)  # other errors of a service are permanent


class JobFailed(ServiceError):
    """The job raised an error."""


class JobTimedOut(ServiceError):
    """The job took longer than its time limit."""


class WorkerEnded(ServiceError):
    """The worker ended during the last attempt, for example because it used all memory."""


class NotRunning(Exception):
    """Another attempt has finished the job, or it was canceled."""


async def attempt(context: WorkerContext, job_id: uuid.UUID) -> float | None:
    """Try once to run a job, and log the result.

    Args:
        context: the resources and the jobs of the worker.
        job_id: the id of the job.

    Returns:
        Seconds until the next attempt; None if the job has ended.
    """
    database = context.database
    record = await context.starts.add(job_id)
    if record is None:
        log.info("job was done before", job_id=str(job_id))
        return None
    with ExitStack() as stack:
        if record.request_id:
            stack.enter_context(bound_contextvars(request_id=record.request_id))
        stack.enter_context(bound_contextvars(job=record.name, job_id=str(job_id)))
        job = context.jobs.get(record.name)
        if job is None:
            log.warning("job of another version", pause_seconds=UNKNOWN_PAUSE_SECONDS)
            await hand_back(database, job_id, UNKNOWN_PAUSE_SECONDS)
            return UNKNOWN_PAUSE_SECONDS
        span = stack.enter_context(trace_attempt(context.tracer, record))  # option: tracing
        started = time.perf_counter()
        outcome = "retried"  # also of an attempt that the worker ends
        stack.callback(lambda: context.count(job.name, outcome, time.perf_counter() - started))
        try:
            await _run(context, job, record)
            outcome = "succeeded"
        except NotRunning:
            outcome = "repeated"
            log.info("job was done before")
        except Exception as error:  # a job may raise any error
            fail(span, type(error).__qualname__)  # option: tracing
            problem = _problem(error)
            is_permanent = isinstance(error, ServiceError) and not isinstance(error, TEMPORARY)
            if is_permanent or record.attempts >= job.attempts:
                report_job(error, job.name)  # option: sentry
                outcome = "failed"
                log.exception("job failed", attempt=record.attempts, arguments=record.arguments)
                await _update(database, states.FAIL, job_id, problem=problem)
                return None
            pause = pause_after(record.attempts)
            log.warning(
                "job will be retried",
                attempt=record.attempts,
                pause_seconds=round(pause, 1),
                reason=f"{type(error).__name__}: {error}",
            )
            in_pause = timedelta(seconds=pause)
            await _update(database, states.RETRY, job_id, problem=problem, pause=in_pause)
            return pause
    return None


async def hand_back(database: Database, job_id: uuid.UUID, pause_seconds: float = 0) -> None:
    """Let another worker run a job that this worker has started."""
    pause = timedelta(seconds=pause_seconds)
    await _update(database, states.HAND_BACK, job_id, pause=pause)


async def _run(context: WorkerContext, job: Job, record: Row[Any]) -> None:
    database = context.database
    if record.attempts > job.attempts:
        raise WorkerEnded
    started = time.perf_counter()
    async with asyncio.timeout(job.timeout_seconds):
        if job.has_own_transactions:
            result = await job.run(database, **record.arguments)
            has_begun = False
        else:
            async with context.sessions.open() as session:
                session.info[RUNNING_JOB] = RunningJob(database, record.id)
                result = await job.run(session, **record.arguments)
                values = {"job_id": record.id, "result": result}
                # Without a statement of the job, the UPDATE needs no transaction.
                has_begun = session.in_transaction()
                if has_begun and await session.scalar(states.SUCCEED, values) is None:
                    raise NotRunning
    # Outside of the time limit, because a late UPDATE would end the next attempt.
    if not (has_begun or await _succeed(context, record.id, result)):
        raise NotRunning
    duration_ms = round((time.perf_counter() - started) * 1000, 2)
    log.info("job done", result=result, duration_ms=duration_ms)


async def _succeed(context: WorkerContext, job_id: uuid.UUID, result: object) -> bool:
    """End a job that has no transaction, and return whether it was running."""
    if result is None:
        return await context.successes.add(job_id) is not None
    return await _update(context.database, states.SUCCEED, job_id, result=result)


async def _update(
    database: Database, statement: Update, job_id: uuid.UUID, **values: object
) -> bool:
    """Change the state of a job, and return whether it was in the state that this requires."""
    async with database.read_connection() as connection:
        changed = await connection.execute(statement, {"job_id": job_id, **values})
        return changed.one_or_none() is not None


def _problem(error: Exception) -> dict[str, Any]:
    """Return a problem document, which has no internal text."""
    if isinstance(error, TimeoutError):
        error = JobTimedOut()
    elif not isinstance(error, ServiceError):
        error = JobFailed()
    return {"type": error.type, "title": error.title, "detail": error.detail}
