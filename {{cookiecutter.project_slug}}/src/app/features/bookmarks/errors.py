"""The errors of bookmarks."""

from app.errors import Conflict, NotFound, VersionMismatch


class BookmarkNotFound(NotFound):
    """No bookmark has this id."""


class DuplicateBookmark(Conflict):
    """Another bookmark has this URL."""


class BookmarkChanged(VersionMismatch):
    """The bookmark has another version than the client has read."""
