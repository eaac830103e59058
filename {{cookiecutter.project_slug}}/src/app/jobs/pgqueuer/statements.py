"""The messages of PgQueuer: rows of its table, written together with the job.

PgQueuer documents this INSERT in its guide for PostgREST.
"""

from datetime import timedelta

from sqlalchemy import (
    ColumnElement,
    Text,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    table,
)
from sqlalchemy.sql.selectable import FromClause, Select

from app.jobs.enqueue import JOB
from app.jobs.models import JOBS, UNFINISHED

LOG_RETENTION = timedelta(hours=1)
QUEUE = table(
    "pgqueuer",
    *map(column, ("priority", "entrypoint", "payload", "execute_after", "dedupe_key", "status")),
)
_QUEUED: ColumnElement[str] = literal_column("'queued'::pgqueuer_status")


def _messages(jobs: FromClause) -> Select[tuple[object, ...]]:
    """Select the messages of jobs. The id of the job is the payload and the key."""
    job_id = cast(jobs.c.id, Text)
    payload = func.convert_to(job_id, "UTF8")
    return select(jobs.c.priority, jobs.c.name, payload, jobs.c.run_after, job_id, _QUEUED)


ENQUEUE = select(JOB.c.id).add_cte(
    insert(QUEUE).from_select(list(QUEUE.c), _messages(JOB).where(JOB.c.is_new)).cte("message")
)
_HAS_MESSAGE = exists().where(
    QUEUE.c.dedupe_key == cast(JOBS.c.id, Text),
    QUEUE.c.status.in_([_QUEUED, literal_column("'picked'::pgqueuer_status")]),
)
DELIVER = insert(QUEUE).from_select(
    list(QUEUE.c), _messages(JOBS).where(JOBS.c.status.in_(UNFINISHED), ~_HAS_MESSAGE)
)
_LOG = table("pgqueuer_log", column("created"))
CLEANUP = [delete(_LOG).where(_LOG.c.created < func.now() - LOG_RETENTION)]
