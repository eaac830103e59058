"""The setting of embeddings."""

from pydantic import BaseModel, Field


class PassageSettings(BaseModel):
    embedding_dimensions: int = Field(
        1536, gt=0, description="Numbers in an embedding; the column must have as many."
    )
