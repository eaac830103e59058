"""Errors: nouns with a status, raised anywhere; `problems.py` answers them.

    Problem                     500   the root: a title and a status
    ├── Unauthorized            401   with WWW-Authenticate
    ├── NotFound                404
    ├── Conflict                409
    ├── PreconditionFailed      412
    ├── Unprocessable           422
    ├── PreconditionRequired    428
    └── Unavailable             503   with Retry-After

A feature subclasses one of them and names its own problem type. Raise them anywhere: business
rules need to know nothing of HTTP beyond the class they inherit from.
"""

from collections.abc import Mapping
from typing import Any


class Problem(Exception):
    """An answer other than success.

    Args:
        detail: what happened this time, safe to show to the client.
        headers: for the response.
        extensions: further members of the problem document.
    """

    status: int = 500
    title: str = "Internal Server Error"
    type: str = "about:blank"

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.headers = dict(headers or {})
        self.extensions = extensions


class Unauthorized(Problem):
    """Nobody we know is asking.

    Args:
        detail: what to send, in words that are safe to show.
        challenge: sent as `WWW-Authenticate`.
        extensions: further members of the problem document.
    """

    status = 401
    title = "Unauthorized"

    def __init__(self, detail: str, *, challenge: str = "Bearer", **extensions: Any) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": challenge}, **extensions)


class NotFound(Problem):
    status = 404
    title = "Not Found"


class Conflict(Problem):
    status = 409
    title = "Conflict"


class PreconditionFailed(Problem):
    status = 412
    title = "Precondition Failed"


class Unprocessable(Problem):
    status = 422
    title = "Unprocessable Content"


class PreconditionRequired(Problem):
    status = 428
    title = "Precondition Required"


class Unavailable(Problem):
    """Something this service depends on is away; the client may try again.

    Args:
        detail: which thing, in words that are safe to show.
        retry_after_seconds: sent as `Retry-After`.
        extensions: further members of the problem document.
    """

    status = 503
    title = "Service Unavailable"

    def __init__(self, detail: str, *, retry_after_seconds: int = 5, **extensions: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_seconds)}, **extensions)
