"""The table."""

import uuid
from datetime import datetime

from sqlalchemy import TIMESTAMP, BigInteger, Index, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base


class BookmarkModel(Base):
    __tablename__ = "bookmarks"

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, server_default=text("gen_random_uuid()")
    )
    url: Mapped[str] = mapped_column(Text, unique=True)
    title: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
    updated_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )

    __table_args__ = (Index(None, "created_at", "id"),)  # the order of pages
