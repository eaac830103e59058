"""Values that every log line of a request or job has, such as the request id."""

import structlog


class LogContext:
    """Add values, such as a request id, to every line that is logged inside."""

    __slots__ = ("_tokens", "_values")

    def __init__(self, **values: str) -> None:
        self._values = values

    def __enter__(self) -> None:
        self._tokens = structlog.contextvars.bind_contextvars(**self._values)

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens)


def current_request_id() -> str | None:
    """Return the id of the current request, or None."""
    return current_value("request_id")


def current_value(name: str) -> str | None:
    """Return the value that a LogContext adds under this name, or None."""
    value: str | None = structlog.contextvars.get_contextvars().get(name)
    return value
