"""The tables of bookmarks and of their tags."""

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.model import GeneratedId, Model


class Bookmark(Model):
    __tablename__ = "bookmarks"

    id: Mapped[GeneratedId]
    url: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str]
    # SQLAlchemy's version_id_col does not count a change of the tags alone.
    version: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    # lazy="raise": a query that needs the tags must load them explicitly, so N+1 cannot happen.
    tag_rows: Mapped[set["BookmarkTag"]] = relationship(cascade="all, delete-orphan", lazy="raise")
    # The names of the tags, for reading and writing.
    tags: AssociationProxy[set[str]] = association_proxy(
        "tag_rows", "name", creator=lambda name: BookmarkTag(name=name)
    )

    # One index for each order of pages.
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "title", "id"))


class BookmarkTag(Model):
    __tablename__ = "bookmark_tags"

    bookmark_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("bookmarks.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True, index=True)
