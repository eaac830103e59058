"""The errors that services raise. `web/problems.py` maps each class to an HTTP status.

    ServiceError
    ├── InvalidInput          422   the input is well-formed and breaks a rule
    ├── NotAuthenticated      401   credentials are missing or invalid
    ├── NotFound              404
    ├── Conflict              409   the state of the resource does not allow the change
    ├── VersionMismatch       412   the resource has changed since the client read it
    ├── TooManyRequests       429   the client may try again later
    ├── BadGateway            502   another service failed, or its response is invalid
    ├── Unavailable           503   a dependency is down; the client may try again
    └── GatewayTimeout        504   another service did not answer in time

A feature subclasses one of them. The name of the class gives the problem its type and its title:
`OrderNotFound` has the type `urn:problem:order-not-found` and the title `Order Not Found`.
Clients depend on the type, so set `type` and `title` yourself before you rename a class.
"""

import re
from typing import Any

START_OF_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class ServiceError(Exception):
    """An error with a message for the client.

    Args:
        detail: the reason, safe to show to the client.
        extensions: further members of the problem document. They cannot replace the standard ones.
    """

    title = "Internal Server Error"
    type = "about:blank"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = vars(cls)
        if "type" in own or "title" not in own:
            title = START_OF_WORD.sub(" ", cls.__name__)
            cls.title = own.get("title", title)
            cls.type = own.get("type", "urn:problem:" + title.lower().replace(" ", "-"))

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


class TooManyRequests(ServiceError):
    """The client has sent too many requests.

    Args:
        detail: the reason, safe to show to the client.
        retry_after_seconds: sent as `Retry-After`.
    """

    title = "Too Many Requests"

    def __init__(self, detail: str, *, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class BadGateway(ServiceError):
    title = "Bad Gateway"


class GatewayTimeout(ServiceError):
    title = "Gateway Timeout"


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
