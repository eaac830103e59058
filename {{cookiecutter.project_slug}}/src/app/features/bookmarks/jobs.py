"""What is done about a bookmark after the answer."""

import uuid

from sqlalchemy import Function, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute

from app.db.database import Transaction
from app.features.bookmarks.models import BookmarkModel as Row
from app.jobs.definition import job

MAX_DUPLICATES = 10


def _page(url: InstrumentedAttribute[str]) -> Function[str]:
    """An address without what seldom makes another page of it."""
    return func.regexp_replace(url, r"^https?://(www\.)?|/$", "", "g")


_OWN_PAGE = select(_page(Row.url)).where(Row.id == bindparam("of_id")).scalar_subquery()
_DUPLICATES = (
    select(Row.id)
    .where(_page(Row.url) == _OWN_PAGE, Row.id != bindparam("of_id"))
    .limit(MAX_DUPLICATES)
)


@job()
async def find_duplicates(transaction: Transaction, *, bookmark_id: str) -> list[str]:
    """Bookmarks that probably are of the same page, by http or https, with or without www.

    It looks at every bookmark, which takes too long for a request.
    """
    rows = await transaction.fetch(_DUPLICATES, {"of_id": uuid.UUID(bookmark_id)})
    return [str(row.id) for row in rows]
