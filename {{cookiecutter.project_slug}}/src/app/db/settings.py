"""Settings of the database and of migrations."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from app.settings_base import EnvironmentSettings, production_value

PLACEHOLDER_PASSWORD = re.compile(r":(password|postgres|changeme|change-me|secret|development)@")


def _check_url(url: SecretStr) -> SecretStr:
    from app.db.url import parse_postgres_url  # noqa: PLC0415 - the import of SQLAlchemy is slow

    parse_postgres_url(url.get_secret_value())
    return url


PostgresUrl = Annotated[SecretStr, AfterValidator(_check_url)]


class DatabaseSettings(EnvironmentSettings):
    database_url: PostgresUrl | None = Field(
        None,
        description="PostgreSQL URL, as platforms show it: postgresql://user:password@host/name. "
        "Without it, development starts an embedded PostgreSQL in .data/.",
        json_schema_extra=production_value(
            "The platform shows it with the database: take the one of the private network.",
            required=True,
        ),
    )
    database_unpooled_url: PostgresUrl | None = Field(
        None,
        description="Direct URL, if DATABASE_URL goes through a transaction pooler, say PgBouncer.",
        json_schema_extra=production_value(
            "The same place, if DATABASE_URL goes through a pooler."
        ),
    )
    database_pool_size: int = Field(
        16,
        ge=1,
        le=1000,
        description="Connections a process holds. Keep replicas x processes x (size + 2) below "
        "PostgreSQL's max_connections.",
    )
    database_pool_timeout_seconds: float = Field(
        3, gt=0, le=60, description="Longest wait for a free connection, then 503."
    )
    database_connect_timeout_seconds: float = Field(
        3, gt=0, le=60, description="Longest wait for a new connection, then 503."
    )
    database_statement_timeout_seconds: float = Field(
        5, gt=0, le=600, description="Longest run of one SQL statement, then 503."
    )
    database_wait_seconds: float = Field(
        30, ge=0, le=600, description="How long `app migrate` waits for the database to appear."
    )
    migration_wait_seconds: float = Field(
        300,
        ge=0,
        le=3600,
        description="How long `app migrate` waits for another replica that migrates.",
    )
    migration_lock_timeout_seconds: float = Field(
        5,
        gt=0,
        le=600,
        description="Longest wait of a migration for a table lock. Requests wait behind it.",
    )

    def insecure_values(self) -> list[str]:
        found = super().insecure_values()
        if self.database_url is None:
            found.append("DATABASE_URL is missing: set it to the URL of a PostgreSQL database")
        elif PLACEHOLDER_PASSWORD.search(self.database_url.get_secret_value()):
            found.append("DATABASE_URL has a placeholder for a password: set a real one")
        return found
