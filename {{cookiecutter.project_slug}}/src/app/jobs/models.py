"""The table of finished jobs."""

from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import Model


class FinishedJob(Model):
    """The idempotency record of a job, written in the job's own transaction."""

    __tablename__ = "finished_jobs"

    key: Mapped[str] = mapped_column(primary_key=True)
    job: Mapped[str]
    result: Mapped[Any] = mapped_column(JSONB, nullable=True)
    finished_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
