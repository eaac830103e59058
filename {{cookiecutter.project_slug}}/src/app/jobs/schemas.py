"""Responses about jobs."""

import uuid
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.jobs.models import JobStatus


class JobAccepted(BaseModel):
    id: uuid.UUID = Field(description="Of the job, whose status is at `Location`.")


class JobProgress(BaseModel):
    done: int
    total: int


class JobProblem(BaseModel):
    type: str = Field(description="Names the kind of problem; stable.")
    title: str
    detail: str | None = None


class JobRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    status: JobStatus
    attempts: int = Field(description="The attempts that have started.")
    progress: JobProgress | None = Field(description="As the job reported it last.")
    result: Any = Field(description="The result of a job that has succeeded.")
    problem: JobProblem | None = Field(description="The problem of the last attempt that failed.")
    created_at: datetime
    started_at: datetime | None = Field(description="The start of the last attempt.")
    finished_at: datetime | None
