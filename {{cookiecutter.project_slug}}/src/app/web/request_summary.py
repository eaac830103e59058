"""One request and its answer, as those see them who watch: the log, metrics, error reports."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from app.settings import Settings

log = structlog.get_logger()

LONGEST_LOGGED_PATH = 500
# Asked for by the platform, under names and addresses of its choosing, every few seconds.
PROBES = [
    "/health",
    "/metrics",  # option: metrics
]
PROBE = re.compile(rf"({'|'.join(PROBES)})(/|\Z)")


@dataclass(slots=True)
class RequestSummary:
    """When a request arrives, the answer's fields are empty."""

    method: str
    path: str
    route: str | None = None  # the template, `/orders/{order_id}`, if one matched
    status: int = 0  # 0: the connection was lost before an answer
    duration_seconds: float = 0.0
    response_bytes: int = 0
    error: Exception | None = None  # what nothing handled, and a 500 answered


RequestHook = Callable[[RequestSummary], None]


def is_probe(path: str) -> bool:
    """Whether the platform asks: such are let in under any name, and left out of much."""
    return PROBE.match(path) is not None


def access_log(settings: Settings) -> RequestHook:
    """One line a request; probes that succeed would drown the rest, so they are debug lines."""
    shows_all = settings.log_level == "debug"

    def log_access(summary: RequestSummary) -> None:
        is_quiet = summary.status < HTTPStatus.BAD_REQUEST and is_probe(summary.path)
        if is_quiet and not shows_all:
            return  # before the line is put together
        (log.debug if is_quiet else log.info)(
            "request",
            method=summary.method,
            path=summary.path[:LONGEST_LOGGED_PATH],
            route=summary.route,
            status=summary.status,
            duration_ms=round(summary.duration_seconds * 1000, 2),
            bytes=summary.response_bytes,
        )

    return log_access
