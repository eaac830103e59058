"""What operators do with jobs: `app jobs`."""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, RowMapping, Update, select

from app.db.session import Database
from app.jobs.backend import load_statements
from app.jobs.models import JOBS
from app.jobs.states import CANCEL, RESTART


async def find_newest(
    database: Database, status: str | None, name: str | None, limit: int
) -> Sequence[Row[Any]]:
    """Return the newest jobs, the last one first.

    Args:
        database: to read.
        status: only jobs with this status; None for all.
        name: only jobs with this name; None for all.
        limit: the maximum number of jobs.
    """
    statement = select(JOBS).order_by(JOBS.c.created_at.desc()).limit(limit)
    if status is not None:
        statement = statement.where(JOBS.c.status == status)
    if name is not None:
        statement = statement.where(JOBS.c.name == name)
    async with database.read_connection() as connection:
        return (await connection.execute(statement)).all()


async def find(job_id: uuid.UUID, database: Database) -> RowMapping | None:
    """Return every field of a job, or None."""
    statement = select(JOBS).where(JOBS.c.id == job_id)
    async with database.read_connection() as connection:
        return (await connection.execute(statement)).mappings().one_or_none()


async def retry(job_id: uuid.UUID, database: Database) -> bool:
    """Enqueue a failed or canceled job again. Return whether there was one."""
    return await _change(database, RESTART, job_id)


async def cancel(job_id: uuid.UUID, database: Database) -> bool:
    """Cancel a job that has not ended. Return whether there was one."""
    return await _change(database, CANCEL, job_id)


async def _change(database: Database, statement: Update, job_id: uuid.UUID) -> bool:
    async with database.session() as session:
        is_changed = await session.scalar(statement, {"job_id": job_id}) is not None
        if is_changed:
            await session.execute(load_statements().DELIVER)
    return is_changed
