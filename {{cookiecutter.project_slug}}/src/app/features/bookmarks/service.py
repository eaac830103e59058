"""The rules: each page is stored once, and a change needs the version that the client has read."""

import uuid
from functools import partial

from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.cache.read_through import Cache  # option: redis
from app.db.pagination import Keyset, fetch_page
from app.db.session import Database, violated_constraint
from app.features.bookmarks.errors import BookmarkChanged, BookmarkNotFound, DuplicateBookmark
from app.features.bookmarks.jobs import find_duplicates  # option: worker
from app.features.bookmarks.models import Bookmark, BookmarkTag
from app.features.bookmarks.schemas import BookmarkInput, BookmarkPage, BookmarkQuery, BookmarkRead
from app.jobs.enqueue import enqueue  # option: worker

# The hot path. A Core statement that is built once costs about a third of loading the object with
# a session: no statement is built, and no object is tracked.
_TAGS = select(BookmarkTag.name).where(BookmarkTag.bookmark_id == Bookmark.id).scalar_subquery()
_FIND = select(
    *Bookmark.__table__.columns,
    func.array(_TAGS).label("tags"),  # ARRAY(SELECT ...): empty without tags
).where(Bookmark.id == bindparam("id"))
CACHE_KEY = "bookmark:{}"  # option: redis
SORTABLE = {"created_at": Bookmark.created_at, "title": Bookmark.title}


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

    Raises:
        InvalidCursor: the cursor is malformed, or belongs to another order.
    """
    statement = select(Bookmark).options(selectinload(Bookmark.tag_rows))
    if query.tag is not None:
        statement = statement.where(Bookmark.tag_rows.any(BookmarkTag.name == query.tag))
    if query.text is not None:
        statement = statement.where(Bookmark.title.icontains(query.text, autoescape=True))
    keyset = Keyset(query.sort, SORTABLE[query.sort.removeprefix("-")], Bookmark.id)
    found, next_cursor = await fetch_page(session, statement, keyset, query.cursor, query.limit)
    items = [BookmarkRead.model_validate(bookmark) for bookmark in found]
    return BookmarkPage(items=items, next_cursor=next_cursor)


async def create(session: AsyncSession, new: BookmarkInput) -> BookmarkRead:
    """Store a bookmark with its tags.

    Raises:
        DuplicateBookmark: a bookmark of this page exists.
    """
    # Without tag_rows, a bookmark that has no tags would load them after the flush.
    bookmark = Bookmark(url=str(new.url), title=new.title, tag_rows=set(), tags=set(new.tags))
    session.add(bookmark)
    await _flush(session)
    await enqueue(session, find_duplicates, bookmark_id=str(bookmark.id))  # option: worker
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
