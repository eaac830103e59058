"""Reports of jobs that fail."""

import uuid
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from app.jobs.attempts import attempt
from app.jobs.definition import Job
from app.worker import open_worker_context
from conftest import settings_for
from error_receiver import dsn_of, events, receiver
from processes import Receiver
from stored_jobs import store

__all__ = ["receiver"]  # a fixture


async def fail(_session: AsyncSession) -> None:
    raise RuntimeError("of a job")


FAIL = Job("_test.fail", fail, 5, 2)


async def test_job_is_reported_once_after_its_last_attempt(
    database_url: str, clean_tables: None, receiver: Receiver
) -> None:
    assert clean_tables is None
    settings = settings_for(database_url, sentry_dsn=dsn_of(receiver.address))
    async with open_worker_context(settings, uuid.uuid4(), concurrency=1) as opened:
        context = replace(opened, jobs={FAIL.name: FAIL})
        with bound_contextvars(request_id="request-7"):
            job_id = await store(context.database, FAIL)
        for _ in range(2):
            await attempt(context, job_id)
    (event,) = events(receiver)
    assert event["transaction"] == "_test.fail"
    assert event["tags"]["request_id"] == "request-7"
    assert event["tags"]["job_id"] == str(job_id)
    assert event["exception"]["values"][0]["type"] == "RuntimeError"
