"""The job that keeps the table of finished jobs small."""

from datetime import timedelta

from sqlalchemy import bindparam, delete, func, select

from app.db.database import Database
from app.jobs.definition import job
from app.jobs.models import FinishedJobModel as Row

KEPT_FOR = timedelta(days=7)  # far longer than anything waits to be delivered a second time
MOST_AT_ONCE = 10_000  # so that no statement takes long

_OLD = select(Row.key).where(Row.finished_at < func.now() - KEPT_FOR).limit(bindparam("most"))
_FORGET = delete(Row).where(Row.key.in_(_OLD)).returning(Row.key)


@job(cron="17 * * * *", has_own_transactions=True)
async def delete_finished_jobs(database: Database) -> int:
    """Delete the notes that nobody needs any more; how many there were."""
    count = 0
    while True:
        async with database.transaction() as transaction:
            forgotten = await transaction.fetch(_FORGET, {"most": MOST_AT_ONCE})
        if not forgotten:
            return count
        count += len(forgotten)
