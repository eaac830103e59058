"""The rules: a page is kept once, and nobody overwrites a change they have not seen."""

import base64
import binascii
import uuid
from datetime import UTC, datetime

from sqlalchemy import bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from app.db.database import Database, Transaction, violated_constraint
from app.errors import Conflict, NotFound, PreconditionFailed, Unprocessable
from app.features.bookmarks.models import BookmarkModel as Row
from app.features.bookmarks.schemas import Bookmark, BookmarkInput, BookmarkPage

_COLUMNS = (Row.id, Row.url, Row.title, Row.version, Row.created_at, Row.updated_at)
_FIND = select(*_COLUMNS).where(Row.id == bindparam("id"))
_FIRST_PAGE = (
    select(*_COLUMNS).order_by(Row.created_at.desc(), Row.id.desc()).limit(bindparam("limit"))
)
_NEXT_PAGE = _FIRST_PAGE.where(
    tuple_(Row.created_at, Row.id) < tuple_(bindparam("before_time"), bindparam("before_id"))
)
_CREATE = insert(Row).on_conflict_do_nothing(index_elements=[Row.url]).returning(*_COLUMNS)
_AT_VERSION = (Row.id == bindparam("of_id"), Row.version == bindparam("at_version"))
_REPLACE = (
    update(Row)
    .where(*_AT_VERSION)
    .values(
        url=bindparam("url"),
        title=bindparam("title"),
        version=Row.version + 1,
        updated_at=func.now(),
    )
    .returning(*_COLUMNS)
)
_DELETE = delete(Row).where(*_AT_VERSION).returning(Row.id)


class BookmarkNotFound(NotFound):
    type = "urn:problem:bookmark-not-found"
    title = "Bookmark Not Found"


class DuplicateBookmark(Conflict):
    type = "urn:problem:duplicate-bookmark"
    title = "Duplicate Bookmark"


class BookmarkChanged(PreconditionFailed):
    type = "urn:problem:bookmark-changed"
    title = "Bookmark Changed"


class InvalidCursor(Unprocessable):
    type = "urn:problem:invalid-cursor"
    title = "Invalid Cursor"


async def find(database: Database, bookmark_id: uuid.UUID) -> Bookmark:
    rows = await database.fetch(_FIND, {"id": bookmark_id})
    if not rows:
        raise BookmarkNotFound
    return Bookmark.model_validate(rows[0])


async def find_page(database: Database, cursor: str | None, limit: int) -> BookmarkPage:
    """Newest first. Pages follow a position, not a number: rows added meanwhile shift nothing.

    Args:
        database: to read from.
        cursor: `next_cursor` of the page before; None for the first.
        limit: bookmarks at most.

    Raises:
        InvalidCursor: it was not made by this function.
    """
    # One more tells whether there is a next page.
    parameters: dict[str, object] = {"limit": limit + 1}
    if cursor is not None:
        parameters["before_time"], parameters["before_id"] = _decode_cursor(cursor)
    rows = await database.fetch(_NEXT_PAGE if cursor else _FIRST_PAGE, parameters)
    items = [Bookmark.model_validate(row) for row in rows[:limit]]
    return BookmarkPage(
        items=items, next_cursor=_encode_cursor(items[-1]) if len(rows) > limit else None
    )


async def create(transaction: Transaction, new: BookmarkInput) -> Bookmark:
    rows = await transaction.fetch(_CREATE, {"url": str(new.url), "title": new.title})
    if not rows:
        raise DuplicateBookmark("This page is bookmarked already.")
    return Bookmark.model_validate(rows[0])


async def replace(
    transaction: Transaction, bookmark_id: uuid.UUID, version: int, new: BookmarkInput
) -> Bookmark:
    """Change what the caller has seen.

    Args:
        transaction: to change it in.
        bookmark_id: which one.
        version: the one that the caller has seen.
        new: all of its new content.

    Raises:
        BookmarkNotFound, BookmarkChanged, DuplicateBookmark: as their names say.
    """
    parameters = {
        "of_id": bookmark_id,
        "at_version": version,
        "url": str(new.url),
        "title": new.title,
    }
    try:
        rows = await transaction.fetch(_REPLACE, parameters)
    except IntegrityError as error:
        if violated_constraint(error) == "uq_bookmarks_url":
            raise DuplicateBookmark("Another bookmark has this page.") from error
        raise
    if not rows:
        await _explain_no_change(transaction, bookmark_id)
    return Bookmark.model_validate(rows[0])


async def remove(transaction: Transaction, bookmark_id: uuid.UUID, version: int) -> None:
    if not await transaction.fetch(_DELETE, {"of_id": bookmark_id, "at_version": version}):
        await _explain_no_change(transaction, bookmark_id)


async def _explain_no_change(transaction: Transaction, bookmark_id: uuid.UUID) -> None:
    if await transaction.fetch(_FIND, {"id": bookmark_id}):
        raise BookmarkChanged("Somebody changed it since you read it: read it again.")
    raise BookmarkNotFound


def _encode_cursor(last: Bookmark) -> str:
    return base64.urlsafe_b64encode(f"{last.created_at.isoformat()} {last.id}".encode()).decode()


def _decode_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        text, _, bookmark_id = base64.urlsafe_b64decode(cursor).decode().partition(" ")
        return datetime.fromisoformat(text).astimezone(UTC), uuid.UUID(bookmark_id)
    except (binascii.Error, ValueError, OverflowError) as error:
        raise InvalidCursor("Send the `next_cursor` of an earlier page, unchanged.") from error
