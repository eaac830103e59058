"""Report unhandled errors to Sentry, or to a server with the same protocol.

The integrations of the SDK stay off: they take more than half of the throughput, and send bodies,
headers and variables. The request middleware and the workers report errors themselves.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import structlog
from structlog.contextvars import get_contextvars
from structlog.typing import EventDict

from app.logging.redaction import redact
from app.sentry.settings import SentrySettings
from app.service_info import SERVICE_NAME, service_version
from app.web.request_summary import RequestHooks, RequestSummary

if TYPE_CHECKING:
    from sentry_sdk import HttpTransport
    from sentry_sdk.types import Event

log = structlog.get_logger()

FLUSH_SECONDS = 2.0  # longest wait at the end, for reports that are being sent
WARNING_INTERVAL_SECONDS = 60.0  # between warnings about lost reports


@asynccontextmanager
async def open_error_tracking(settings: SentrySettings, hooks: RequestHooks) -> AsyncIterator[None]:
    """Report errors, also one that prevents the start. Without SENTRY_DSN, import nothing.

    Args:
        settings: the DSN and the environment.
        hooks: the reporter is added to them.
    """
    if settings.sentry_dsn is None:
        yield
        return
    import sentry_sdk  # noqa: PLC0415 - the import takes a tenth of a second, and memory

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a line for every retry
    sentry_sdk.init(
        settings.sentry_dsn.get_secret_value().strip(),
        environment=settings.environment,
        release=f"{SERVICE_NAME}@{service_version()}+{settings.commit_sha}",
        before_send=_redact,
        default_integrations=False,
        debug=False,
        enable_backpressure_handling=False,
        include_local_variables=False,
        max_breadcrumbs=0,
        send_client_reports=False,
        spotlight=False,
        transport=_transport(),
    )
    hooks.on_end.append(_report_request)
    try:
        yield
    except Exception as error:  # every error of the start is reported, and raised again
        _report(error, "start", {})
        raise
    finally:
        hooks.on_end.remove(_report_request)
        await asyncio.to_thread(sentry_sdk.get_client().close, FLUSH_SECONDS)
        sentry_sdk.get_global_scope().set_client(None)


def _transport() -> "type[HttpTransport]":
    """Return the SDK's transport, with a warning when Sentry is down or refuses the key."""
    from sentry_sdk import HttpTransport  # noqa: PLC0415 - the import is slow

    class WarningTransport(HttpTransport):
        _next_warning = 0.0

        def on_dropped_event(self, reason: str) -> None:
            if time.monotonic() >= self._next_warning:
                self._next_warning = time.monotonic() + WARNING_INTERVAL_SECONDS
                log.warning("reports are lost: Sentry does not accept them", reason=reason)

    return WarningTransport


def _report_request(summary: RequestSummary) -> None:
    if summary.error is not None:
        route = summary.route or "(no route)"
        tags = {"method": summary.method, "route": route}
        _report(summary.error, f"{summary.method} {route}", tags | get_contextvars())


def report_job(error: Exception, job: str) -> None:
    """Report a job that failed for good. Without SENTRY_DSN, do nothing.

    Args:
        error: the error of the last attempt.
        job: the name of the job.
    """
    sdk = sys.modules.get("sentry_sdk")  # importing it takes a tenth of a second
    if sdk is not None and sdk.is_initialized():
        _report(error, job, get_contextvars())


def _report(error: Exception, transaction: str, tags: dict[str, Any]) -> None:
    import sentry_sdk  # noqa: PLC0415 - the import is slow

    with sentry_sdk.new_scope() as scope:
        scope.set_transaction_name(transaction)
        scope.set_tags(tags)
        scope.add_event_processor(_mark_unhandled)
        scope.capture_exception(error)


def _mark_unhandled(event: "Event", _hint: dict[str, Any]) -> "Event":
    for value in event["exception"]["values"]:
        value["mechanism"]["handled"] = False
    return event


def _redact(event: "Event", _hint: dict[str, Any]) -> "Event":
    """Redact a report with the rules of the logs."""
    event.pop("server_name", None)  # the name of a machine may be that of a person
    clean = cast("Event", redact(None, "", cast("EventDict", event)))
    clean["release"] = event["release"]  # name@version resembles an e-mail address
    return clean
