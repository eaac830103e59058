"""What the environment says about embeddings."""

from typing import Annotated

from pydantic import Field

EmbeddingDimensions = Annotated[
    int, Field(gt=0, description="Numbers in an embedding; the column must have as many.")
]
