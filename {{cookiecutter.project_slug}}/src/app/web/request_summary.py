"""The summary of a request, for hooks of the request middleware: log, metrics, error reports."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

# Platforms request these paths every few seconds, with a Host header of their own.
PROBES = [
    "/health",
    "/metrics",  # option: metrics
]
PROBE = re.compile(rf"({'|'.join(PROBES)})(/|\Z)")


@dataclass(slots=True)
class RequestSummary:
    """One request. The fields of the response are set when the request has ended."""

    method: str
    path: str
    route: str | None = None  # the template, `/orders/{order_id}`, if a route matched
    status: int = 0  # 0: the connection was lost before a response
    duration_seconds: float = 0.0
    response_bytes: int = 0
    error: Exception | None = None  # an unhandled error; the response was a 500


RequestHook = Callable[[RequestSummary], None]


@dataclass
class RequestHooks:
    """Functions that the request middleware calls for every request.

    Args:
        on_start: called when a request arrives.
        on_end: called when the response is complete, or the connection was lost.
    """

    on_start: list[RequestHook] = field(default_factory=list)
    on_end: list[RequestHook] = field(default_factory=list)


def is_probe(path: str) -> bool:
    """Return whether the path is one of the probes."""
    return PROBE.match(path) is not None
