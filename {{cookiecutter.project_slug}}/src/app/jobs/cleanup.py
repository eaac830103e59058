"""The job that deletes old jobs."""

from datetime import timedelta

from sqlalchemy import bindparam, delete, func, or_, select

from app.db.session import Database
from app.jobs.backend import load_statements
from app.jobs.definition import job
from app.jobs.models import JobRecord, WorkerRecord

RETENTION = timedelta(days=7)
RETENTION_OF_FAILED = timedelta(days=30)
RETENTION_OF_WORKERS = timedelta(hours=1)  # since their last heartbeat
BATCH_SIZE = 10_000  # so that no statement takes long

_OLD = (
    select(JobRecord.id)
    .where(JobRecord.finished_at < func.now() - RETENTION)
    .where(
        or_(
            JobRecord.status != "failed",
            JobRecord.finished_at < func.now() - RETENTION_OF_FAILED,
        )
    )
    .limit(bindparam("batch_size"))
)
_DELETE = delete(JobRecord).where(JobRecord.id.in_(_OLD)).returning(JobRecord.id)
_DELETE_WORKERS = delete(WorkerRecord).where(
    WorkerRecord.beat_at < func.now() - RETENTION_OF_WORKERS
)


@job(cron="17 * * * *", has_own_transactions=True)
async def delete_old_jobs(database: Database) -> int:
    """Delete finished jobs older than the retention, and return their number."""
    count = 0
    async with database.session() as session:
        await session.execute(_DELETE_WORKERS)
        for statement in load_statements().CLEANUP:
            await session.execute(statement)
    while True:
        async with database.session() as session:
            deleted = (await session.scalars(_DELETE, {"batch_size": BATCH_SIZE})).all()
        if not deleted:
            return count
        count += len(deleted)
