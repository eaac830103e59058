"""Work on a bookmark that is done after the response."""

import uuid

from sqlalchemy import Function, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app.features.bookmarks.models import Bookmark
from app.jobs.definition import job

MAX_DUPLICATES = 10


def comparable(url: InstrumentedAttribute[str]) -> Function[str]:
    """Return an expression for the URL without its scheme, `www.` and a final slash."""
    return func.regexp_replace(url, r"^https?://(www\.)?|/$", "", "g")


@job()
async def find_duplicates(session: AsyncSession, *, bookmark_id: str) -> list[str]:
    """Return the ids of bookmarks that are probably of the same page.

    The query reads every bookmark, which takes too long for a request.
    """
    other = aliased(Bookmark)
    statement = (
        select(other.id)
        .where(Bookmark.id == uuid.UUID(bookmark_id), other.id != Bookmark.id)
        .where(comparable(other.url) == comparable(Bookmark.url))
        .limit(MAX_DUPLICATES)
    )
    return [str(duplicate) for duplicate in await session.scalars(statement)]
