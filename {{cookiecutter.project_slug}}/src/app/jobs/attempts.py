"""Doing a job: in one transaction with the note that it is done, in bounded time.

So a job that is delivered twice is done once, whichever worker gets it: the second one waits for
the first one's note, and finds it or does the job itself.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import structlog
from sqlalchemy import bindparam, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from app.db.database import Database
from app.jobs.definition import Job, Message, pause_after
from app.jobs.models import FinishedJobModel as Row
from app.logging.setup import LogContext
from app.sentry.reporting import report_job  # option: sentry

log = structlog.get_logger()

_BEGIN = insert(Row).on_conflict_do_nothing(index_elements=[Row.key]).returning(Row.key)
_FINISH = (
    update(Row)
    .where(Row.key == bindparam("of_key"))
    .values(result=bindparam("result", type_=JSONB))
    .returning(Row.key)
)


@contextmanager
def surroundings(_job: Job, _message: Message) -> Iterator[Callable[[Exception], None]]:
    """Around an attempt and its lines in the log; what is yielded is told of a failure.

    Nothing here: a seam for what observes.
    """
    yield lambda _error: None


async def attempt(database: Database, job: Job, message: Message, number: int) -> float | None:
    """Try once to do a job, and say in the log what came of it.

    Args:
        database: for the job's transaction.
        job: what to do.
        message: for what.
        number: of this attempt, from 1.

    Returns:
        Seconds after which to try again; None if it is done, or failed for good.
    """
    with ExitStack() as stack:
        if message.request_id:
            stack.enter_context(LogContext(request_id=message.request_id))
        stack.enter_context(LogContext(job=job.name, job_key=message.key))
        observe_failure = stack.enter_context(surroundings(job, message))
        try:
            await _run(database, job, message)
        except Exception as error:
            observe_failure(error)
            if number == job.attempts:
                report_job(error, job.name)  # option: sentry
                log.exception("job failed", attempt=number, arguments=message.arguments)
                return None
            pause = pause_after(number)
            log.warning(
                "job will be tried again",
                attempt=number,
                pause_seconds=round(pause, 1),
                reason=f"{type(error).__name__}: {error}",
            )
            return pause
    return None


async def attempt_until_settled(database: Database, job: Job, message: Message) -> None:
    """Try until it is done or failed for good."""
    number = 1
    while (pause := await attempt(database, job, message, number)) is not None:
        await asyncio.sleep(pause)
        number += 1


async def _run(database: Database, job: Job, message: Message) -> None:
    started = time.perf_counter()
    async with asyncio.timeout(job.timeout_seconds):
        if job.has_own_transactions:
            result = await job.run(database, **message.arguments)
        else:
            is_new, result = await _run_once(database, job, message)
            if not is_new:
                log.info("job is done already")
                return
    duration_ms = round((time.perf_counter() - started) * 1000, 2)
    log.info("job done", result=result, duration_ms=duration_ms)


async def _run_once(database: Database, job: Job, message: Message) -> tuple[bool, Any]:
    """Whether it had not been done before, and the result."""
    async with database.transaction() as transaction:
        if not await transaction.fetch(_BEGIN, {"key": message.key, "job": job.name}):
            return False, None
        result = await job.run(transaction, **message.arguments)
        await transaction.fetch(_FINISH, {"of_key": message.key, "result": result})
    return True, result
