"""The access log: one line for each request."""

from http import HTTPStatus

import structlog

from app.web.request_summary import RequestHook, RequestSummary, is_probe

log = structlog.get_logger()

MAX_LOGGED_PATH = 500


def create_access_log_hook(*, log_probes: bool) -> RequestHook:
    """Return a hook that logs each request.

    Args:
        log_probes: log successful probes, too, as debug lines.
    """

    def log_access(summary: RequestSummary) -> None:
        is_quiet = summary.status < HTTPStatus.BAD_REQUEST and is_probe(summary.path)
        if is_quiet and not log_probes:
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
