"""Work on bookmarks that is done after the response."""

import uuid
from typing import Any

from sqlalchemy import Function, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app.features.bookmarks.models import Bookmark, BookmarkTag
from app.features.bookmarks.schemas import BookmarkInput
from app.jobs.definition import job
from app.jobs.enqueue import enqueue
from app.jobs.progress import report_progress

MAX_DUPLICATES = 10
PROGRESS_STEP = 50  # bookmarks between two reports of the progress
_STORE = insert(Bookmark).on_conflict_do_nothing(index_elements=["url"]).returning(Bookmark.id)


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


@job(timeout_seconds=300)
async def import_bookmarks(
    session: AsyncSession, *, bookmarks: list[dict[str, Any]]
) -> dict[str, int]:
    """Store the bookmarks whose pages are not stored yet.

    Args:
        session: the transaction of the job. It stores all of them, or none.
        bookmarks: inputs in the form of their schema.

    Returns:
        The number of added bookmarks, and of those that existed.
    """
    added = 0
    for done, values in enumerate(bookmarks):
        if done % PROGRESS_STEP == 0:
            await report_progress(session, done, len(bookmarks))
        new = BookmarkInput.model_validate(values)
        row = {"url": str(new.url), "title": new.title}
        bookmark_id = await session.scalar(_STORE, row)
        if bookmark_id is None:
            continue
        added += 1
        session.add_all([BookmarkTag(bookmark_id=bookmark_id, name=tag) for tag in set(new.tags)])
        await enqueue(session, find_duplicates, bookmark_id=str(bookmark_id))
    return {"added": added, "existing": len(bookmarks) - added}
