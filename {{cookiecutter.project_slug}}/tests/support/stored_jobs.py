"""Jobs in the database of a test, and a context that runs them without a worker."""

import uuid
from typing import Any

from sqlalchemy import RowMapping, select

from app.db.session import Database
from app.jobs.definition import Job, JobFunction
from app.jobs.enqueue import enqueue
from app.jobs.models import JOBS
from app.jobs.worker_context import WorkerContext
from sql import fetch


def job_of(run: JobFunction, *, timeout_seconds: float = 60, attempts: int = 2) -> Job:
    return Job("_test.job", run, timeout_seconds, attempts)


def context_of(database: Database, *jobs: Job) -> WorkerContext:
    return WorkerContext(database, {job.name: job for job in jobs}, uuid.uuid4())


async def store(database: Database, job: Job, /, **arguments: Any) -> uuid.UUID:
    """Enqueue a job in a transaction of its own, and return its id."""
    async with database.session() as session:
        return await enqueue(session, job, **arguments)


async def stored(database: Database, job_id: uuid.UUID) -> RowMapping:
    """Return the row of a job."""
    (row,) = await fetch(database, select(JOBS).where(JOBS.c.id == job_id))
    return row
