"""The job that keeps the table of finished jobs small."""

from datetime import timedelta

from sqlalchemy import delete, func, select

from app.database import Transaction
from app.tasks.definition import job
from app.tasks.models import FinishedJobModel as Row

KEPT_FOR = timedelta(days=7)  # far longer than anything waits to be delivered a second time
MOST_AT_ONCE = 10_000

_OLD = select(Row.key).where(Row.finished_at < func.now() - KEPT_FOR).limit(MOST_AT_ONCE)
_FORGET = delete(Row).where(Row.key.in_(_OLD)).returning(Row.key)


@job(cron="17 * * * *")
async def forget_finished_jobs(transaction: Transaction) -> int:
    """Delete notes that nobody needs any more; those that are left are deleted an hour later."""
    return len(await transaction.fetch(_FORGET))
