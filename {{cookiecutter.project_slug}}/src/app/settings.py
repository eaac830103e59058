"""Settings: one typed class, filled from environment variables (and from `.env` on a laptop).

Every variable is documented by its field; settings_docs.py makes the pages of it.
"""

import re
from importlib.metadata import version
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.auth.settings import AccessTokenMinutes, AuthKeys, SessionDays, weak_keys  # option: auth
from app.features.passages.settings import EmbeddingDimensions  # option: pgvector
from app.features.webhooks.settings import VerifyToken, WebhookSecrets  # option: webhooks
from app.jobs.settings import WorkerConcurrency  # option: worker
from app.rate_limit.settings import RateLimit  # option: rate_limit
from app.sentry.settings import SentryDsn  # option: sentry
from app.settings_types import COMMIT, CommaSeparated, Token, url_of
from app.tracing.settings import Collector, TraceRatio  # option: tracing

SERVICE_NAME = "example-service"

LOOPBACK = "127.0.0.1,::1"
PLACEHOLDER_PASSWORD = re.compile(r":(password|postgres|changeme|change-me|secret|development)@")
# Behind :// engine.py looks at it, which knows more forms.
PostgresUrl = Annotated[SecretStr, url_of("postgresql", "postgres", rest=".+")]
RedisUrl = Annotated[SecretStr, url_of("redis", "rediss", "unix")]  # option: redis


class Settings(BaseSettings):
    """What the environment may say about a running service; frozen once read."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,  # `PORT=` in a file means "not set"
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    environment: Literal["development", "test", "staging", "production"] = Field(
        "development",
        description="Where this runs. Outside development, insecure values are refused.",
    )
    commit_sha: str = Field(
        "unknown", validation_alias=COMMIT, description="Commit the running code was built from."
    )
    host: str = Field("", description="Address to listen on; empty is every IPv4 and IPv6 address.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 is any free one.")
    web_concurrency: int = Field(
        1, ge=1, le=64, description="Server processes. One per container is best: scale containers."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written."
    )
    log_format: Literal["json", "console"] | None = Field(
        None, description="json or console; by default console in development, else json."
    )

    database_url: PostgresUrl | None = Field(
        None,
        description="PostgreSQL, as platforms hand it out: postgresql://user:password@host/name. "
        "Without it, development starts an embedded one in .data/.",
    )
    database_unpooled_url: PostgresUrl | None = Field(
        None,
        description="Direct URL, if DATABASE_URL goes through a transaction pooler, say PgBouncer.",
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
        description="How long `app migrate` waits while another replica migrates.",
    )
    migration_lock_timeout_seconds: float = Field(
        5,
        gt=0,
        le=600,
        description="Longest wait of a migration for a table lock, so traffic never queues.",
    )

    redis_url: RedisUrl | None = Field(None, description="A cache: redis://host/0")  # option: redis
    rate_limit: RateLimit = "600/minute"  # option: rate_limit
    otel_exporter_otlp_endpoint: Collector = None  # option: tracing
    trace_ratio: TraceRatio = 0.1  # option: tracing
    sentry_dsn: SentryDsn = None  # option: sentry
    embedding_dimensions: EmbeddingDimensions = 1536  # option: pgvector
    webhook_secrets: WebhookSecrets = None  # option: webhooks
    webhook_verify_token: VerifyToken = None  # option: webhooks
    worker_concurrency: WorkerConcurrency = 4  # option: worker

    allowed_hosts: CommaSeparated = Field(
        ["*"],
        description="Host names served, comma-separated; *.example.com matches subdomains. "
        "Probes answer to every name.",
    )
    cors_origins: CommaSeparated = Field(
        [], description="Browser origins that may call, comma-separated: https://app.example.com."
    )
    forwarded_allow_ips: str = Field(
        LOOPBACK, description="Proxies whose X-Forwarded-* headers are believed, comma-separated."
    )
    max_body_bytes: int = Field(1_048_576, ge=0, description="Largest request body, in bytes.")
    request_body_timeout_seconds: float = Field(
        60, gt=0, le=3600, description="Longest wait for a request's body, then 408."
    )
    api_docs: bool | None = Field(
        None, description="Serve /docs and /openapi.json; by default everywhere but in production."
    )
    health_token: Token = Field(
        None,
        description="Bearer token that opens /health/detailed in production; 16 characters up.",
    )
    metrics_token: Token = Field(None, description="The same for /metrics.")  # option: metrics
    auth_keys: AuthKeys = None  # option: auth
    access_token_minutes: AccessTokenMinutes = 15  # option: auth
    session_days: SessionDays = 30  # option: auth

    drain_seconds: float = Field(
        5,
        ge=0,
        le=300,
        description="After SIGTERM: time for the load balancer to see that /health/ready fails.",
    )
    graceful_timeout_seconds: int = Field(
        20, ge=1, le=900, description="After the drain: longest wait for requests in flight."
    )

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [item.strip().lower() for item in value.split(",") if item.strip()]
        return value

    @field_validator("cors_origins")
    @classmethod
    def check_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s@?#]+", origin):
                raise ValueError("an origin is scheme://host[:port], without a path or final slash")
        return origins

    @model_validator(mode="after")
    def refuse_insecure_values(self) -> Self:
        if self.environment in {"development", "test"}:
            return self
        refused = []
        if self.database_url is None:
            refused.append("DATABASE_URL is missing: set it to the URL of a PostgreSQL database")
        elif PLACEHOLDER_PASSWORD.search(self.database_url.get_secret_value()):
            refused.append("DATABASE_URL has a placeholder for a password: set a real one")
        if "*" in self.allowed_hosts:
            refused.append("ALLOWED_HOSTS must name the hosts served, for example api.example.com")
        refused += weak_keys(self.auth_keys)  # option: auth
        if refused:
            raise ValueError("\n".join(refused))
        return self

    @property
    def version(self) -> str:
        return version(SERVICE_NAME)

    @property
    def logs_are_json(self) -> bool:
        return (self.log_format or ("console" if self.is_development else "json")) == "json"

    @property
    def is_development(self) -> bool:
        return self.environment == "development"

    @property
    def serves_docs(self) -> bool:
        return self.environment != "production" if self.api_docs is None else self.api_docs


class SettingsError(Exception):
    """The environment is wrong: one readable sentence per problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        SettingsError: with one line for every variable that is missing, malformed or insecure.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(
            [
                line
                for problem in error.errors()
                for line in _explain(problem["loc"], problem["msg"])
            ]
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"the file .env cannot be read: {error}"]) from None


def _explain(location: tuple[int | str, ...], message: str) -> list[str]:
    reasons = message.removeprefix("Value error, ").splitlines()
    if not location:
        return reasons
    return [f"{str(location[0]).upper()}: {reason}" for reason in reasons]
