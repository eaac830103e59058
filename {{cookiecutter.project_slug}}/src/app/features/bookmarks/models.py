"""The tables of bookmarks and of their tags."""

import uuid
from datetime import datetime

from sqlalchemy import TIMESTAMP, BigInteger, ForeignKey, Index, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.model import Model


class Bookmark(Model):
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
        TIMESTAMP(timezone=True), server_default=func.now(), onupdate=func.now()
    )
    # lazy="raise": a query that needs the tags must load them explicitly, so N+1 cannot happen.
    tags: Mapped[list["BookmarkTag"]] = relationship(
        cascade="all, delete-orphan", lazy="raise", order_by="BookmarkTag.name"
    )

    # One index for each order of pages.
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "title", "id"))


class BookmarkTag(Model):
    __tablename__ = "bookmark_tags"

    bookmark_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("bookmarks.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(Text, primary_key=True)

    __table_args__ = (Index(None, "name"),)
