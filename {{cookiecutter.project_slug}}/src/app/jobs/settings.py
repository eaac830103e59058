"""Settings of workers."""

from pydantic import BaseModel, Field

from app.settings_base import production_value


class JobSettings(BaseModel):
    worker_concurrency: int = Field(4, ge=1, le=500, description="Jobs that a worker runs at once.")
    worker_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port of a worker's health checks and metrics; 0 is any free one. By "
        "default it is PORT, and 8001 in development.",
        json_schema_extra=production_value("PORT is right, unless it serves something else."),
    )
