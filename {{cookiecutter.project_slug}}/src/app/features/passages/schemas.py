"""What goes in and out."""

import math
import uuid
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_DIMENSIONS = 2000  # an HNSW index takes no more
MAX_NEAREST = 40  # an HNSW index finds no more than hnsw.ef_search rows, which is 40
LARGEST_REAL = 3.4e38


def _at_length_one(embedding: list[float]) -> list[float]:
    """The cosine looks at the direction only; at length one no number over- or underflows."""
    length = math.hypot(*embedding)
    if length == 0:
        raise ValueError("an embedding of noughts points nowhere")
    return [number / length for number in embedding]


Embedding = Annotated[
    list[Annotated[float, Field(ge=-LARGEST_REAL, le=LARGEST_REAL, allow_inf_nan=False)]],
    Field(
        min_length=1,
        max_length=MAX_DIMENSIONS,
        description="Of one model for all passages; as many numbers as EMBEDDING_DIMENSIONS says.",
    ),
    AfterValidator(_at_length_one),
]
PassageText = Annotated[
    str,
    # PostgreSQL cannot store NUL.
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=20_000, pattern=r"^[^\x00]*$"
    ),
]


class PassageInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: PassageText = Field(examples=["Water boils at a lower temperature on a mountain."])
    embedding: Embedding


class Passage(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    text: str
    created_at: datetime


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid")

    embedding: Embedding
    limit: int = Field(10, ge=1, le=MAX_NEAREST)


class Neighbour(Passage):
    distance: float = Field(description="Of cosines: 0 is the same direction, 2 the opposite.")


class Neighbours(BaseModel):
    items: list[Neighbour] = Field(description="The nearest first.")
