"""What the environment says about workers."""

from typing import Annotated

from pydantic import Field

WorkerConcurrency = Annotated[
    int, Field(ge=1, le=500, description="Jobs that a worker does at once.")
]
