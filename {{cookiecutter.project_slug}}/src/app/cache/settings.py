"""The setting of Redis."""

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from app.settings_base import production_value, url_of

COMPOSE_VARIABLES = ["REDIS_PORT"]  # of compose.servers.yaml; no setting reads it


class RedisSettings(BaseModel):
    redis_url: Annotated[SecretStr, url_of("redis", "rediss", "unix")] | None = Field(
        None,
        description="URL of Redis or Valkey: redis://host/0",
        json_schema_extra=production_value("The platform shows it with Redis."),
    )
