"""The table of passages."""

from datetime import datetime

from pgvector.sqlalchemy import Vector
from sqlalchemy import Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import GeneratedId, Model

DIMENSIONS = 1536  # of the column; to change it, see docs/passages.md


class Passage(Model):
    __tablename__ = "passages"

    id: Mapped[GeneratedId]
    text: Mapped[str]
    embedding: Mapped[list[float]] = mapped_column(Vector(DIMENSIONS))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index(
            None,
            "embedding",
            postgresql_using="hnsw",
            postgresql_ops={"embedding": "vector_cosine_ops"},
        ),
    )
