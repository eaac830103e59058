"""Enqueue jobs, in the transaction that they belong to.

A job is a row. A transaction that is rolled back enqueues none, and a committed job is not lost.
"""

import uuid
from datetime import timedelta
from typing import Any

from opentelemetry.propagate import inject  # option: tracing
from sqlalchemy import bindparam, func, literal_column
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import get_contextvars

from app.jobs.backend import load_statements
from app.jobs.definition import Job
from app.jobs.models import JOBS

NOW = timedelta(0)
# `key` is set to itself, because DO NOTHING would not return the row that has the key already. The
# system column xmax is 0 in a row that this statement has inserted.
_INSERT = insert(JOBS).values(
    name=bindparam("name"),
    key=bindparam("key"),
    priority=bindparam("priority"),
    run_after=func.now() + bindparam("delay", type_=INTERVAL),
    arguments=bindparam("arguments", type_=JSONB),
    request_id=bindparam("request_id"),
    owner_id=bindparam("owner_id"),  # option: auth
    trace_context=bindparam("trace_context", type_=JSONB),  # option: tracing
)
JOB = (
    _INSERT.on_conflict_do_update(constraint="uq_jobs_name_key", set_={"key": _INSERT.excluded.key})
    .returning(
        *(JOBS.c[name] for name in ("id", "name", "priority", "run_after")),
        literal_column("xmax = 0").label("is_new"),
    )
    .cte("job")
)


async def enqueue(
    session: AsyncSession,
    job: Job,
    /,
    *,
    key: str | None = None,
    delay: timedelta = NOW,
    priority: int = 0,
    owner_id: uuid.UUID | None = None,  # option: auth
    **arguments: Any,
) -> uuid.UUID:
    """Store a job in the session's transaction. It takes one round trip.

    Args:
        session: the transaction. A worker starts the job after its commit.
        job: the job.
        key: of several jobs with the same name and key, only the first is stored.
        delay: the shortest time until its first attempt.
        priority: jobs with a greater number start first.
        owner_id: the account that may read the job.  # option: auth
        arguments: the arguments of the job, stored as JSON.

    Returns:
        The id of the job, or of the earlier job with this key.

    Raises:
        TypeError: the job does not have these arguments.
    """
    job.check_arguments(arguments)
    trace_context: dict[str, str] = {}  # option: tracing
    inject(trace_context)  # option: tracing
    values = {
        "name": job.name,
        "key": key,
        "priority": priority,
        "delay": delay,
        "arguments": arguments,
        "request_id": get_contextvars().get("request_id"),
        "owner_id": owner_id,  # option: auth
        "trace_context": trace_context,  # option: tracing
    }
    job_id: uuid.UUID = (await session.execute(load_statements().ENQUEUE, values)).scalar_one()
    return job_id
