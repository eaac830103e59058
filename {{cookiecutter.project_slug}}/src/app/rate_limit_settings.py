"""What the environment says about limits."""

from typing import Annotated

from pydantic import Field

RateLimit = Annotated[
    str,
    Field(
        pattern=r"^[1-9]\d*/(second|minute|hour|day)$",
        description="Requests that a client may make: 600/minute; also /second, /hour or /day.",
    ),
]
