"""The tables of jobs and of workers."""

import uuid
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import GeneratedId, Model

JobStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
UNFINISHED = ("queued", "running")


class JobRecord(Model):
    """A job: written in the transaction that enqueues it, and kept for a week after its end.

    Attributes:
        key: of several jobs with the same name and key, one is stored.
        run_after: no attempt starts before this time.
        attempts: the attempts that have started.
        progress: `done` and `total`, as the job reported them last.
        problem: the problem document of the last failure, safe to show.
        owner_id: the account that may read the job.  # option: auth
        worker_id: the worker of the last attempt.
        sent_at: when a message was sent to Celery; None until then.  # option: celery
    """

    __tablename__ = "jobs"

    id: Mapped[GeneratedId]
    name: Mapped[str]
    key: Mapped[str | None]
    status: Mapped[JobStatus] = mapped_column(server_default="queued")
    priority: Mapped[int] = mapped_column(server_default="0")
    run_after: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default="0")
    arguments: Mapped[dict[str, Any]] = mapped_column(JSONB)
    progress: Mapped[dict[str, int] | None] = mapped_column(JSONB(none_as_null=True))
    result: Mapped[Any] = mapped_column(JSONB(none_as_null=True), nullable=True)
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    owner_id: Mapped[uuid.UUID | None]  # option: auth
    request_id: Mapped[str | None]
    trace_context: Mapped[dict[str, str] | None] = mapped_column(JSONB)  # option: tracing
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None] = mapped_column(index=True)
    worker_id: Mapped[uuid.UUID | None]
    sent_at: Mapped[datetime | None]  # option: celery

    __table_args__ = (
        UniqueConstraint("name", "key"),
        Index(
            "ix_jobs_unfinished",
            text("priority DESC"),
            "run_after",
            postgresql_where=status.in_(UNFINISHED),
        ),
    )


class WorkerRecord(Model):
    """A worker, with the time of its last heartbeat."""

    __tablename__ = "workers"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    host: Mapped[str]
    concurrency: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    beat_at: Mapped[datetime] = mapped_column(server_default=func.now())


JOBS = Model.metadata.tables[JobRecord.__tablename__]
WORKERS = Model.metadata.tables[WorkerRecord.__tablename__]
