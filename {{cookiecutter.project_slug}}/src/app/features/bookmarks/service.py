"""The rules: each page is stored once, and a change needs the version that the client has read."""

import uuid
from functools import partial

from sqlalchemy import bindparam, func, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.cache.read_through import Cache  # option: redis
from app.db.session import Database, violated_constraint
from app.features.bookmarks.cursor import decode_cursor, encode_cursor
from app.features.bookmarks.errors import BookmarkChanged, BookmarkNotFound, DuplicateBookmark
from app.features.bookmarks.jobs import find_duplicates  # option: worker
from app.features.bookmarks.models import Bookmark, BookmarkTag
from app.features.bookmarks.schemas import (
    BookmarkInput,
    BookmarkPage,
    BookmarkQuery,
    BookmarkRead,
)
from app.jobs.queue import Queue  # option: worker

# The hot path. A Core statement that is built once costs about a third of loading the object with
# a session: no statement is built, and no object is tracked.
_TAGS = select(BookmarkTag.name).where(BookmarkTag.bookmark_id == Bookmark.id)
_FIND = select(
    *Bookmark.__table__.columns,
    func.array(_TAGS.order_by(BookmarkTag.name).scalar_subquery()).label("tags"),
).where(Bookmark.id == bindparam("id"))
CACHE_KEY = "bookmark:{}"  # option: redis


async def find(
    database: Database,
    bookmark_id: uuid.UUID,
    cache: Cache,  # option: redis
) -> BookmarkRead:
    """Return a bookmark.

    Raises:
        BookmarkNotFound: no bookmark has this id.
    """
    load = partial(_load, database, bookmark_id)
    key = CACHE_KEY.format(bookmark_id)  # option: redis
    load = partial(cache.get_or_load, key, BookmarkRead, load)  # option: redis
    return await load()


async def _load(database: Database, bookmark_id: uuid.UUID) -> BookmarkRead:
    async with database.read_connection() as connection:
        row = (await connection.execute(_FIND, {"id": bookmark_id})).mappings().one_or_none()
    if row is None:
        raise BookmarkNotFound
    return BookmarkRead.model_validate(row)


async def find_page(session: AsyncSession, query: BookmarkQuery) -> BookmarkPage:
    """Return one page of a filtered and sorted list.

    Pages follow a position, not a number: a bookmark that is added meanwhile shifts no page.

    Raises:
        InvalidCursor: the cursor is malformed, or belongs to another order.
    """
    field = Bookmark.title if query.sort.endswith("title") else Bookmark.created_at
    position = tuple_(field, Bookmark.id)
    is_descending = query.sort.startswith("-")
    statement = select(Bookmark).options(selectinload(Bookmark.tags))
    if query.tag is not None:
        statement = statement.where(Bookmark.tags.any(BookmarkTag.name == query.tag))
    if query.text is not None:
        statement = statement.where(Bookmark.title.icontains(query.text, autoescape=True))
    if query.cursor is not None:
        last = decode_cursor(query.sort, query.cursor)
        statement = statement.where(position < last if is_descending else position > last)
    order = (field.desc(), Bookmark.id.desc()) if is_descending else (field, Bookmark.id)
    # One more than the limit tells whether there is a next page.
    statement = statement.order_by(*order).limit(query.limit + 1)
    found = (await session.scalars(statement)).all()
    items = [BookmarkRead.of(bookmark) for bookmark in found[: query.limit]]
    has_more = len(found) > query.limit
    return BookmarkPage(
        items=items, next_cursor=encode_cursor(query.sort, items[-1]) if has_more else None
    )


async def create(
    session: AsyncSession,
    new: BookmarkInput,
    queue: Queue,  # option: worker
) -> BookmarkRead:
    """Store a bookmark with its tags.

    Raises:
        DuplicateBookmark: a bookmark of this page exists.
    """
    bookmark = Bookmark(url=str(new.url), title=new.title, tags=_tags(new))
    session.add(bookmark)
    await _flush(session)
    key = str(bookmark.id)  # option: worker
    queue.enqueue(session, find_duplicates, key=key, bookmark_id=key)  # option: worker
    return BookmarkRead.of(bookmark)


async def replace(
    session: AsyncSession,
    bookmark_id: uuid.UUID,
    version: int,
    new: BookmarkInput,
    cache: Cache,  # option: redis
) -> BookmarkRead:
    """Replace the whole content of a bookmark, if this is still its version.

    Raises:
        BookmarkNotFound, BookmarkChanged, DuplicateBookmark
    """
    bookmark = await _lock(session, bookmark_id, version)
    bookmark.url = str(new.url)
    bookmark.title = new.title
    bookmark.version += 1
    kept = {tag.name: tag for tag in bookmark.tags}
    bookmark.tags = [kept.get(tag.name, tag) for tag in _tags(new)]
    await _flush(session)
    cache.invalidate_on_commit(session, CACHE_KEY.format(bookmark_id))  # option: redis
    return BookmarkRead.of(bookmark)


async def delete(
    session: AsyncSession,
    bookmark_id: uuid.UUID,
    version: int,
    cache: Cache,  # option: redis
) -> None:
    """Delete a bookmark with its tags, if this is still its version.

    Raises:
        BookmarkNotFound, BookmarkChanged
    """
    await session.delete(await _lock(session, bookmark_id, version))
    cache.invalidate_on_commit(session, CACHE_KEY.format(bookmark_id))  # option: redis


async def _lock(session: AsyncSession, bookmark_id: uuid.UUID, version: int) -> Bookmark:
    """Load a bookmark with its tags, and lock it until the end of the transaction."""
    bookmark = await session.get(
        Bookmark,
        bookmark_id,
        options=[selectinload(Bookmark.tags)],
        with_for_update={"of": Bookmark},
    )
    if bookmark is None:
        raise BookmarkNotFound
    if bookmark.version != version:
        raise BookmarkChanged("The bookmark has changed since you read it: read it again.")
    return bookmark


async def _flush(session: AsyncSession) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        if violated_constraint(error) == "uq_bookmarks_url":
            raise DuplicateBookmark("A bookmark of this page exists.") from error
        raise


def _tags(new: BookmarkInput) -> list[BookmarkTag]:
    return [BookmarkTag(name=name) for name in sorted(set(new.tags))]
