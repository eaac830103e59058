"""The errors of bookmarks."""

from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch


class BookmarkNotFound(NotFound):
    """No bookmark has this id."""


class DuplicateBookmark(Conflict):
    """Another bookmark has this URL."""


class BookmarkChanged(VersionMismatch):
    """The bookmark has another version than the client has read."""


class InvalidCursor(InvalidInput):
    """The cursor is malformed, or belongs to another order."""
