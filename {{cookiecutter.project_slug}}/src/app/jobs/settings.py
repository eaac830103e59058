"""Settings of workers."""

from pydantic import BaseModel, Field

from app.settings_base import production_value


class JobSettings(BaseModel):
    worker_concurrency: int = Field(4, ge=1, le=500, description="Jobs that a worker runs at once.")
    max_workers: int = Field(
        1,
        ge=0,
        description="Most workers that run at once, also during a deployment. `app check` adds "
        "their connections to those of MAX_REPLICAS.",
    )
    worker_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port of a worker's health checks and metrics; 0 is any free one. By "
        "default it is PORT, and 8001 in development.",
        json_schema_extra=production_value("PORT is right, unless it serves something else."),
    )

    @property
    def worker_connections(self) -> int:
        """The connections to PostgreSQL of one worker: docs/deployment/README.md lists them."""
        jobs = self.worker_concurrency + 1  # option: postgres
        jobs = 2 * self.worker_concurrency  # option: celery
        return jobs + 5
