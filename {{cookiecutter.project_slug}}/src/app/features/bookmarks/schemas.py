"""Requests and responses."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, StringConstraints

from app.db.pagination import Cursor, NextCursor

NO_NUL = r"^[^\x00]*$"  # PostgreSQL cannot store NUL
ONE_LINE = r"^[^\x00-\x1f]*$"  # without control characters
WORD = r"^[A-Za-z0-9][A-Za-z0-9-]*$"


def _without_fragment(url: HttpUrl) -> HttpUrl:
    """Remove the fragment: `#part` is a place within a page, not another page."""
    return HttpUrl(str(url).partition("#")[0])


PageUrl = Annotated[HttpUrl, AfterValidator(_without_fragment)]
SearchText = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=NO_NUL)]
Title = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=ONE_LINE),
]
Tag = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, max_length=50, pattern=WORD),
]
SortField = Literal["created_at", "-created_at", "title", "-title"]


class BookmarkInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: PageUrl = Field(examples=["https://www.postgresql.org/docs/"], max_length=2000)
    title: Title = Field(examples=["The PostgreSQL manual"])
    tags: list[Tag] = Field(default=[], max_length=20, examples=[["database"]])


class BookmarkRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    url: str
    title: str
    tags: Annotated[list[str], AfterValidator(sorted)] = Field(description="In alphabetical order.")
    version: int = Field(description="Incremented by each change; also the ETag.")
    created_at: datetime
    updated_at: datetime


class BookmarkQuery(BaseModel):
    """The query parameters of the list."""

    model_config = ConfigDict(extra="forbid")

    tag: Tag | None = Field(None, description="Only bookmarks with this tag.")
    text: SearchText | None = Field(
        None, description="Only bookmarks whose title contains this text, in upper or lower case."
    )
    sort: SortField = Field("-created_at", description="A minus sign sorts in descending order.")
    cursor: Cursor = None
    limit: int = Field(50, ge=1, le=1000, description="Maximum number of bookmarks.")


class BookmarkPage(BaseModel):
    items: list[BookmarkRead]
    next_cursor: NextCursor
