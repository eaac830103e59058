"""The errors of bookmarks."""

from app.errors import Conflict, InvalidInput, NotFound, VersionMismatch


class BookmarkNotFound(NotFound):
    type = "urn:problem:bookmark-not-found"
    title = "Bookmark Not Found"


class DuplicateBookmark(Conflict):
    type = "urn:problem:duplicate-bookmark"
    title = "Duplicate Bookmark"


class BookmarkChanged(VersionMismatch):
    type = "urn:problem:bookmark-changed"
    title = "Bookmark Changed"


class InvalidCursor(InvalidInput):
    type = "urn:problem:invalid-cursor"
    title = "Invalid Cursor"
