"""Values that every log line of a request or job has, such as the request id."""

import structlog


class LogContext:
    """Adds values, such as a request id, to every line logged inside; entered at every request."""

    __slots__ = ("_tokens", "_values")

    def __init__(self, **values: str) -> None:
        self._values = values

    def __enter__(self) -> None:
        self._tokens = structlog.contextvars.bind_contextvars(**self._values)

    def __exit__(self, *_: object) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens)


def current_request_id() -> str | None:
    """The id of the request that is being served, if any."""
    return current_value("request_id")


def current_value(name: str) -> str | None:
    """What LogContext adds under that name to the lines logged here, if anything."""
    value: str | None = structlog.contextvars.get_contextvars().get(name)
    return value
