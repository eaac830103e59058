"""The example feature: bookmarks of web pages. Copy its shape, then delete it."""
