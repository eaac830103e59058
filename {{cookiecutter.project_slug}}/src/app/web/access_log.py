"""The access log: one line for each request."""

from http import HTTPStatus

import structlog

from app.logging.settings import LogSettings
from app.web.request_summary import RequestHook, RequestSummary, is_probe

log = structlog.get_logger()

MAX_LOGGED_PATH = 500


def access_log(settings: LogSettings) -> RequestHook:
    """Return a hook that logs each request. Successful probes are debug lines."""
    shows_all = settings.log_level == "debug"

    def log_access(summary: RequestSummary) -> None:
        is_quiet = summary.status < HTTPStatus.BAD_REQUEST and is_probe(summary.path)
        if is_quiet and not shows_all:
            return  # before the fields of the line are computed
        (log.debug if is_quiet else log.info)(
            "request",
            method=summary.method,
            path=summary.path[:MAX_LOGGED_PATH],
            route=summary.route,
            status=summary.status,
            duration_ms=round(summary.duration_seconds * 1000, 2),
            bytes=summary.response_bytes,
        )

    return log_access
