"""The messages of Celery. The table `jobs` is their outbox, which a relay in each worker sends."""

from collections.abc import Sequence

from sqlalchemy import Executable, func, select

from app.jobs.enqueue import JOB

CHANNEL = "jobs"  # of NOTIFY
ENQUEUE = select(JOB.c.id, func.pg_notify(CHANNEL, ""))
DELIVER = select(func.pg_notify(CHANNEL, ""))
CLEANUP: Sequence[Executable] = ()
