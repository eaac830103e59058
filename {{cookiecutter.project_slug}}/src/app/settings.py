"""The settings of the service: one class, read from environment variables and from `.env`.

Each package declares its own settings. This module combines them.
"""

from difflib import get_close_matches
from typing import Self

from dotenv import dotenv_values
from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.auth.oidc.settings import OidcSettings  # option: oidc
from app.cache.settings import RedisSettings  # option: redis
from app.db.settings import DatabaseSettings
from app.discovery import find_modules
from app.feature_settings import FeatureSettings
from app.features.accounts.settings import AccountSettings  # option: accounts
from app.features.passages.settings import PassageSettings  # option: pgvector
from app.features.webhooks.settings import WebhookSettings  # option: webhooks
from app.jobs.settings import JobSettings  # option: worker
from app.logging.settings import LogSettings
from app.metrics.settings import MetricsSettings  # option: metrics
from app.rate_limit.settings import RateLimitSettings  # option: rate_limit
from app.sentry.settings import SentrySettings  # option: sentry
from app.settings_base import COMMIT_VARIABLES, EnvironmentSettings
from app.tracing.settings import TracingSettings  # option: tracing
from app.web.settings import WebSettings

ENV_FILE = ".env"
# No setting reads them. Packages of options have such a list as well.
COMPOSE_VARIABLES = ["DEBUG_PORT", "HOST_GID", "HOST_UID", "IMAGE_TAG", "POSTGRES_PASSWORD"]
COMPOSE_VARIABLES += ["POSTGRES_PORT", "VERSION", "WATCHFILES_FORCE_POLLING"]


class Settings(
    DatabaseSettings,
    WebSettings,
    LogSettings,
    RedisSettings,  # option: redis
    RateLimitSettings,  # option: rate_limit
    TracingSettings,  # option: tracing
    SentrySettings,  # option: sentry
    PassageSettings,  # option: pgvector
    WebhookSettings,  # option: webhooks
    JobSettings,  # option: worker
    MetricsSettings,  # option: metrics
    AccountSettings,  # option: accounts
    OidcSettings,  # option: oidc
    FeatureSettings,
    EnvironmentSettings,
    BaseSettings,
):
    """The settings of a running service. They are frozen."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_ignore_empty=True,  # `PORT=` in a file means "not set"
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="after")
    def refuse_insecure_values(self) -> Self:
        if self.is_deployed and (found := self.insecure_values()):
            raise ValueError("\n".join(found))
        return self


class SettingsError(Exception):
    """The environment has missing, malformed or insecure values: one sentence for each."""

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
        found = [_explain(problem["loc"], problem["msg"]) for problem in error.errors()]
        problems = [line for lines in found for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        problems = [f"the file .env cannot be read: {error}"]
    raise SettingsError(problems)


def _explain(location: tuple[int | str, ...], message: str) -> list[str]:
    variable = f"{str(location[0]).upper()}: " if location else ""
    return [variable + reason for reason in message.removeprefix("Value error, ").splitlines()]


def compose_variables() -> set[str]:
    """Return the variables that only compose*.yaml read. Docker Compose uses the same `.env`."""
    of_packages = (getattr(m, "COMPOSE_VARIABLES", ()) for m in find_modules("settings"))
    return set(COMPOSE_VARIABLES).union(*of_packages)


def unknown_variables() -> list[str]:
    """Return one sentence for each variable in `.env` that no setting reads."""
    settings = {name.upper() for name in (*Settings.model_fields, *COMMIT_VARIABLES)}
    known = settings | compose_variables()
    problems = []
    for name in dotenv_values(ENV_FILE):
        if name.upper() not in known and not name.startswith("COMPOSE_"):
            near = get_close_matches(name.upper(), known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            problems.append(f"{ENV_FILE} has {name}, which no setting reads{hint}")
    return problems
