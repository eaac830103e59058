"""What goes in and out."""

import uuid
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, StringConstraints


def _canonical(url: HttpUrl) -> HttpUrl:
    """Without the fragment: `#part` is a place within a page, not another page."""
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


class BookmarkInput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: PageUrl = Field(examples=["https://www.postgresql.org/docs/"], max_length=2000)
    title: Title = Field(examples=["The PostgreSQL manual"])


class Bookmark(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    url: str
    title: str
    version: int = Field(description="Counts changes; also the ETag.")
    created_at: datetime
    updated_at: datetime


class BookmarkPage(BaseModel):
    items: list[Bookmark]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page, if any.")
