"""The progress of a running job, which clients can read before its transaction is committed."""

import uuid
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.jobs.states import REPORT_PROGRESS

RUNNING_JOB = "running_job"  # a key of session.info


@dataclass(frozen=True)
class RunningJob:
    """The job that a session belongs to."""

    database: Database
    id: uuid.UUID


async def report_progress(session: AsyncSession, done: int, total: int) -> None:
    """Store the progress of the running job, on a connection of its own. It takes a round trip.

    Args:
        session: of a job. With a session of a request or a test, nothing is stored.
        done: the number of finished parts.
        total: the number of all parts.
    """
    running: RunningJob | None = session.info.get(RUNNING_JOB)
    if running is None:
        return
    values = {"job_id": running.id, "progress": {"done": done, "total": total}}
    async with running.database.read_connection() as connection:
        await connection.execute(REPORT_PROGRESS, values)
