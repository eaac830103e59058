"""What the environment says about error tracking."""

from typing import Annotated

from pydantic import Field, SecretStr

from app.settings_types import url_of

# A key, which once had a second half; a Sentry of one's own may be below a path.
_REST = r"\w+(:\w+)?@[^/:]+(:\d+)?(/[\w.-]+)*/\d+"

SentryDsn = Annotated[
    Annotated[SecretStr, url_of("https", "http", rest=_REST)] | None,
    Field(description="Sentry project that errors are reported to. Not set: nothing is reported."),
]
