"""Settings of workers."""

from pydantic import BaseModel, Field


class JobSettings(BaseModel):
    worker_concurrency: int = Field(4, ge=1, le=500, description="Jobs that a worker runs at once.")
