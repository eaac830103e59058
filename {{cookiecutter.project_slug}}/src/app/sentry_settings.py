"""What the environment says about error tracking."""

from typing import Annotated

from pydantic import Field, SecretStr

from app.settings_types import url_of

SentryDsn = Annotated[
    Annotated[SecretStr, url_of("https", "http", rest=r"\w+@[^/:]+(:\d+)?/\d+")] | None,
    Field(description="Sentry project that errors are reported to. Not set: nothing is reported."),
]
