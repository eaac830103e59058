"""Requests and responses."""

import uuid
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, StringConstraints

from app.features.bookmarks.models import Bookmark


def _canonical(url: HttpUrl) -> HttpUrl:
    """Remove the fragment: `#part` is a place within a page, not another page."""
    return HttpUrl.build(
        scheme=url.scheme,
        username=url.username,
        password=url.password,
        host=url.host or "",
        port=url.port,
        path=(url.path or "/").removeprefix("/"),
        query=url.query,
    )


PageUrl = Annotated[HttpUrl, AfterValidator(_canonical)]
Title = Annotated[
    str,
    # Control characters have no place in a title, and PostgreSQL cannot store NUL at all.
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$"
    ),
]


Tag = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, to_lower=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$", max_length=50
    ),
]
SortField = Literal["created_at", "-created_at", "title", "-title"]


class BookmarkInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: PageUrl = Field(examples=["https://www.postgresql.org/docs/"], max_length=2000)
    title: Title = Field(examples=["The PostgreSQL manual"])
    tags: list[Tag] = Field(default=[], max_length=20, examples=[["database"]])


class BookmarkRead(BaseModel):
    id: uuid.UUID
    url: str
    title: str
    tags: list[str] = Field(description="In alphabetical order.")
    version: int = Field(description="Incremented by each change; also the ETag.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, bookmark: Bookmark) -> Self:
        """Convert a bookmark whose tags are loaded."""
        return cls(
            id=bookmark.id,
            url=bookmark.url,
            title=bookmark.title,
            tags=[tag.name for tag in bookmark.tags],
            version=bookmark.version,
            created_at=bookmark.created_at,
            updated_at=bookmark.updated_at,
        )


class BookmarkQuery(BaseModel):
    """The query parameters of the list."""

    model_config = ConfigDict(extra="forbid")

    tag: Tag | None = Field(None, description="Only bookmarks with this tag.")
    text: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        pattern=r"^[^\x00]*$",
        description="Only bookmarks whose title contains this text, in upper or lower case.",
    )
    sort: SortField = Field("-created_at", description="A minus sign sorts in descending order.")
    cursor: str | None = Field(
        None, max_length=1000, description="`next_cursor` of the previous page."
    )
    limit: int = Field(50, ge=1, le=1000, description="Maximum number of bookmarks.")


class BookmarkPage(BaseModel):
    items: list[BookmarkRead]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page, if any.")
