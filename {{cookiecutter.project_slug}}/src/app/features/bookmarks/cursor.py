"""The position of a page in a sorted list, as a text for clients."""

import base64
import uuid
from datetime import UTC, datetime

from pydantic import TypeAdapter

from app.features.bookmarks.errors import InvalidCursor
from app.features.bookmarks.schemas import BookmarkRead, CursorText, SortField

# The order of the list, and the value of the sorted field and the id of the last bookmark.
CURSOR = TypeAdapter(tuple[SortField, CursorText, uuid.UUID])


def encode_cursor(sort: SortField, last: BookmarkRead) -> str:
    """Return a cursor for the bookmarks after this one.

    Args:
        sort: the order of the list.
        last: the last bookmark of the page.
    """
    value = last.title if sort.endswith("title") else last.created_at.isoformat()
    return base64.urlsafe_b64encode(CURSOR.dump_json((sort, value, last.id))).decode()


def decode_cursor(sort: SortField, cursor: str) -> tuple[str | datetime, uuid.UUID]:
    """Return the value of the sorted field and the id of the last bookmark.

    Raises:
        InvalidCursor: `encode_cursor` did not return it, or it belongs to another order.
    """
    try:
        encoded_sort, value, bookmark_id = CURSOR.validate_json(base64.urlsafe_b64decode(cursor))
        if encoded_sort != sort:
            raise InvalidCursor("The cursor belongs to a list with another `sort`.")
        if sort.endswith("title"):
            return value, bookmark_id
        return datetime.fromisoformat(value).astimezone(UTC), bookmark_id
    except (ValueError, OverflowError) as error:
        raise InvalidCursor("Send the `next_cursor` of an earlier page, unchanged.") from error
