"""Requests and responses."""

import math
import uuid
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_DIMENSIONS = 2000  # the limit of an HNSW index
MAX_NEAREST = 40  # the default of hnsw.ef_search, which limits the rows that the index finds
MAX_REAL = 3.4e38
NO_NUL = r"^[^\x00]*$"  # PostgreSQL cannot store NUL


def _normalize(embedding: list[float]) -> list[float]:
    """Normalize to length one. The cosine distance stays the same, and no number overflows."""
    length = math.hypot(*embedding)
    if length == 0:
        raise ValueError("the embedding must not be all zeros")
    return [number / length for number in embedding]


Embedding = Annotated[
    list[Annotated[float, Field(ge=-MAX_REAL, le=MAX_REAL, allow_inf_nan=False)]],
    Field(
        min_length=1,
        max_length=MAX_DIMENSIONS,
        description="From the same model for all passages, with EMBEDDING_DIMENSIONS numbers.",
    ),
    AfterValidator(_normalize),
]
PassageText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000, pattern=NO_NUL),
]


class PassageInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: PassageText = Field(examples=["Water boils at a lower temperature on a mountain."])
    embedding: Embedding


class PassageRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    text: str
    created_at: datetime


class NearestQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    embedding: Embedding
    limit: int = Field(10, ge=1, le=MAX_NEAREST)


class Neighbour(PassageRead):
    distance: float = Field(description="Cosine distance: 0 is the same direction, 2 the opposite.")


class Neighbours(BaseModel):
    items: list[Neighbour] = Field(description="The nearest first.")
