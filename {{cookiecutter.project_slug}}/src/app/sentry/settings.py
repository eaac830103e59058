"""The setting of error reports."""

from typing import Annotated

from pydantic import Field, SecretStr

from app.settings_base import EnvironmentSettings, production_value, url_of

# A public key, with an optional second half. A self-hosted Sentry may be below a path.
_REST = r"\w+(:\w+)?@[^/:]+(:\d+)?(/[\w.-]+)*/\d+"


class SentrySettings(EnvironmentSettings):
    sentry_dsn: Annotated[SecretStr, url_of("https", "http", rest=_REST)] | None = Field(
        None,
        description="Sentry project that errors are reported to. Not set: nothing is reported.",
        json_schema_extra=production_value("In Sentry: the project's settings, Client Keys."),
    )
