"""The setting of rate limits."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field


def _check(limit: str) -> str:
    if not re.fullmatch(r"[1-9]\d*/(second|minute|hour|day)", limit):
        raise ValueError("it must be a number and second, minute, hour or day, as in 600/minute")
    return limit


class RateLimitSettings(BaseModel):
    rate_limit: Annotated[str, AfterValidator(_check)] = Field(
        "600/minute",
        description="Requests that a client may make: 600/minute; also /second, /hour or /day.",
    )
