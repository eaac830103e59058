"""The statements that change the state of a job.

    queued ──start──▶ running ──succeed──▶ succeeded
      ▲                │  │
      └─retry, hand back  └────fail──────▶ failed

A job takes effect once, although a worker may be killed and a message may arrive twice: the
transaction of an attempt ends with SUCCEED. If another attempt has finished first, or the job was
canceled, SUCCEED finds no row, and the transaction is rolled back.
"""

from sqlalchemy import Uuid, bindparam, func, null, update
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, JSONB

from app.jobs.models import JOBS, UNFINISHED

_ID = JOBS.c.id == bindparam("job_id")
_RUNNING = update(JOBS).where(_ID, JOBS.c.status == "running").returning(JOBS.c.id)
_IN_PAUSE = func.now() + bindparam("pause", type_=INTERVAL)
_PROBLEM = bindparam("problem", type_=JSONB)

_IDS = JOBS.c.id == func.any(bindparam("job_ids", type_=ARRAY(Uuid)))
START = (
    update(JOBS)
    .where(_IDS, JOBS.c.status.in_(UNFINISHED))
    .values(
        status="running",
        attempts=JOBS.c.attempts + 1,
        started_at=func.now(),
        worker_id=bindparam("worker_id"),
    )
    .returning(
        *(JOBS.c[name] for name in ("id", "name", "attempts", "arguments", "request_id")),
        JOBS.c.trace_context,  # option: tracing
    )
)
_SUCCEEDED = {
    "status": "succeeded",
    "problem": null(),
    "finished_at": func.clock_timestamp(),  # now() is the start of the job's transaction
}
SUCCEED = _RUNNING.values(_SUCCEEDED | {"result": bindparam("result", type_=JSONB)})
# For jobs without a transaction and without a result.
SUCCEED_ALL = (
    update(JOBS)
    .where(_IDS, JOBS.c.status == "running")
    .values(_SUCCEEDED | {"result": null()})
    .returning(JOBS.c.id)
)
FAIL = _RUNNING.values(status="failed", problem=_PROBLEM, finished_at=func.now())
RETRY = _RUNNING.values(
    status="queued",
    run_after=_IN_PAUSE,
    problem=_PROBLEM,
    sent_at=null(),  # option: celery
)
# An attempt that the worker ends does not count.
_QUEUED_AGAIN = {
    "status": "queued",
    "attempts": JOBS.c.attempts - 1,
    "sent_at": null(),  # option: celery
}
HAND_BACK = _RUNNING.values(_QUEUED_AGAIN | {"run_after": _IN_PAUSE})
HAND_BACK_ALL = (
    update(JOBS)
    .where(JOBS.c.status == "running", JOBS.c.worker_id == bindparam("worker"))
    .values(_QUEUED_AGAIN)
    .returning(JOBS.c.id)
)
REPORT_PROGRESS = _RUNNING.values(progress=bindparam("progress", type_=JSONB))
CANCEL = (
    update(JOBS)
    .where(_ID, JOBS.c.status.in_(UNFINISHED))
    .values(status="canceled", finished_at=func.now())
    .returning(JOBS.c.id)
)
# An operator's retry begins with the first attempt.
RESTART = (
    update(JOBS)
    .where(_ID, JOBS.c.status.in_(("failed", "canceled")))
    .values(
        status="queued",
        run_after=func.now(),
        attempts=0,
        progress=null(),
        problem=null(),
        finished_at=null(),
        sent_at=null(),  # option: celery
    )
    .returning(JOBS.c.id)
)
