"""The position of a page in a sorted list, as a text for clients."""

import base64
import json
import uuid
from datetime import UTC, datetime

from app.features.bookmarks.errors import InvalidCursor
from app.features.bookmarks.schemas import BookmarkRead, SortField


def encode_cursor(sort: SortField, last: BookmarkRead) -> str:
    """Return a cursor for the bookmarks after this one.

    Args:
        sort: the order of the list.
        last: the last bookmark of the page.
    """
    value = last.title if sort.endswith("title") else last.created_at.isoformat()
    return base64.urlsafe_b64encode(json.dumps([sort, value, str(last.id)]).encode()).decode()


def decode_cursor(sort: SortField, cursor: str) -> tuple[str | datetime, uuid.UUID]:
    """Return the value of the sorted field and the id of the last bookmark.

    Raises:
        InvalidCursor: `encode_cursor` did not return it, or it belongs to another order.
    """
    try:
        of_sort, value, bookmark_id = json.loads(base64.urlsafe_b64decode(cursor))
        if of_sort != sort or "\0" in value:
            raise InvalidCursor("The cursor belongs to a list with another `sort`.")
        if not sort.endswith("title"):
            value = datetime.fromisoformat(value).astimezone(UTC)
        return value, uuid.UUID(bookmark_id)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise InvalidCursor("Send the `next_cursor` of an earlier page, unchanged.") from error
