"""Work on a bookmark that is done after the response."""

import uuid

from sqlalchemy import Function, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.features.bookmarks.models import Bookmark
from app.jobs.definition import job

MAX_DUPLICATES = 10


def _page(url: InstrumentedAttribute[str]) -> Function[str]:
    """Return the parts of a URL that name the page: no scheme, no `www.`, no final slash."""
    return func.regexp_replace(url, r"^https?://(www\.)?|/$", "", "g")


_OWN_PAGE = select(_page(Bookmark.url)).where(Bookmark.id == bindparam("of_id")).scalar_subquery()
_DUPLICATES = (
    select(Bookmark.id)
    .where(_page(Bookmark.url) == _OWN_PAGE, Bookmark.id != bindparam("of_id"))
    .limit(MAX_DUPLICATES)
)


@job()
async def find_duplicates(session: AsyncSession, *, bookmark_id: str) -> list[str]:
    """Return the ids of bookmarks that are probably of the same page.

    The query reads every bookmark, which takes too long for a request.
    """
    found = await session.scalars(_DUPLICATES, {"of_id": uuid.UUID(bookmark_id)})
    return [str(duplicate) for duplicate in found]
