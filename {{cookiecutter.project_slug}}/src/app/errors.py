"""The errors that services raise. `web/problems.py` maps each class to an HTTP status.

    ServiceError
    ├── InvalidInput          422   the input is well-formed and breaks a rule
    ├── NotAuthenticated      401   credentials are missing or invalid
    ├── NotFound              404
    ├── Conflict              409   the state of the resource does not allow the change
    ├── VersionMismatch       412   the resource has changed since the client read it
    └── Unavailable           503   a dependency is down; the client may try again

A feature subclasses one of them and sets its own `type` and `title`.
"""

from typing import Any


class ServiceError(Exception):
    """An error with a message for the client.

    Args:
        detail: the reason, safe to show to the client.
        extensions: further members of the problem document.
    """

    title = "Internal Server Error"
    type = "about:blank"

    def __init__(self, detail: str | None = None, **extensions: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.extensions = extensions


class InvalidInput(ServiceError):
    title = "Unprocessable Content"


class NotAuthenticated(ServiceError):
    title = "Unauthorized"


class NotFound(ServiceError):
    title = "Not Found"


class Conflict(ServiceError):
    title = "Conflict"


class VersionMismatch(ServiceError):
    title = "Precondition Failed"


class Unavailable(ServiceError):
    """A dependency of this service is down.

    Args:
        detail: which dependency, in words that are safe to show.
        retry_after_seconds: sent as `Retry-After`.
        extensions: further members of the problem document.
    """

    title = "Service Unavailable"

    def __init__(self, detail: str, *, retry_after_seconds: int = 5, **extensions: Any) -> None:
        super().__init__(detail, **extensions)
        self.retry_after_seconds = retry_after_seconds
