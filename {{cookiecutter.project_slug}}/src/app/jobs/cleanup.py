"""The job that deletes old idempotency records."""

from datetime import timedelta

from sqlalchemy import bindparam, delete, func, select

from app.db.session import Database
from app.jobs.definition import job
from app.jobs.models import FinishedJob

RETENTION = timedelta(days=7)  # a message is delivered again within minutes at most
BATCH_SIZE = 10_000  # so that no statement takes long

_OLD = (
    select(FinishedJob.key)
    .where(FinishedJob.finished_at < func.now() - RETENTION)
    .limit(bindparam("batch_size"))
)
_DELETE = delete(FinishedJob).where(FinishedJob.key.in_(_OLD)).returning(FinishedJob.key)


@job(cron="17 * * * *", has_own_transactions=True)
async def delete_finished_jobs(database: Database) -> int:
    """Delete the records older than the retention, and return their number."""
    count = 0
    while True:
        async with database.session() as session:
            deleted = (await session.scalars(_DELETE, {"batch_size": BATCH_SIZE})).all()
        if not deleted:
            return count
        count += len(deleted)
