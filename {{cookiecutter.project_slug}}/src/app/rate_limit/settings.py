"""What the environment says about limits."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field


def _check(limit: str) -> str:
    if not re.fullmatch(r"[1-9]\d*/(second|minute|hour|day)", limit):
        raise ValueError("it must be a number and second, minute, hour or day, as in 600/minute")
    return limit


RateLimit = Annotated[
    str,
    AfterValidator(_check),
    Field(description="Requests that a client may make: 600/minute; also /second, /hour or /day."),
]
