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
from app.features.bookmarks.schemas import BookmarkInput, BookmarkPage, BookmarkQuery, BookmarkRead
from app.jobs.queue import Queue  # option: worker

# The hot path. A Core statement that is built once costs about a third of loading the object with
# a session: no statement is built, and no object is tracked.
_TAGS = select(BookmarkTag.name).where(BookmarkTag.bookmark_id == Bookmark.id).scalar_subquery()
_FIND = select(
    *Bookmark.__table__.columns,
    func.array(_TAGS).label("tags"),  # ARRAY(SELECT ...): empty without tags
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

    A page begins after the last bookmark of the previous page, not at an offset. So bookmarks that
    are added meanwhile do not shift the pages.

    Raises:
        InvalidCursor: the cursor is malformed, or belongs to another order.
    """
    field = Bookmark.title if query.sort.endswith("title") else Bookmark.created_at
    position = tuple_(field, Bookmark.id)
    is_descending = query.sort.startswith("-")
    statement = select(Bookmark).options(selectinload(Bookmark.tag_rows))
    if query.tag is not None:
        statement = statement.where(Bookmark.tag_rows.any(BookmarkTag.name == query.tag))
    if query.text is not None:
        statement = statement.where(Bookmark.title.icontains(query.text, autoescape=True))
    if query.cursor is not None:
        last = decode_cursor(query.sort, query.cursor)
        statement = statement.where(position < last if is_descending else position > last)
    order = (field.desc(), Bookmark.id.desc()) if is_descending else (field, Bookmark.id)
    # There is a next page if the query finds one bookmark more than the limit.
    statement = statement.order_by(*order).limit(query.limit + 1)
    found = (await session.scalars(statement)).all()
    items = [BookmarkRead.model_validate(bookmark) for bookmark in found[: query.limit]]
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
    # Without tag_rows, a bookmark that has no tags would load them after the flush.
    bookmark = Bookmark(url=str(new.url), title=new.title, tag_rows=set(), tags=set(new.tags))
    session.add(bookmark)
    await _flush(session)
    key = str(bookmark.id)  # option: worker
    queue.enqueue(session, find_duplicates, key=key, bookmark_id=key)  # option: worker
    return BookmarkRead.model_validate(bookmark)


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
    bookmark.tags = set(new.tags)
    await _flush(session)
    cache.invalidate_on_commit(session, CACHE_KEY.format(bookmark_id))  # option: redis
    return BookmarkRead.model_validate(bookmark)


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
        options=[selectinload(Bookmark.tag_rows)],
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
