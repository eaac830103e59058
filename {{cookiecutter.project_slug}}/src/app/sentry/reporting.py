"""Errors that nothing handles, reported to Sentry or to what speaks its protocol.

The SDK's own integrations stay off: they take more than half of the throughput, and bodies,
headers and variables with them. What is reported here is what the request layer saw.
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

from app.logging.setup import redact
from app.settings import SERVICE_NAME, Settings
from app.web.request_summary import RequestHook, RequestSummary

if TYPE_CHECKING:
    from sentry_sdk.transport import HttpTransport
    from sentry_sdk.types import Event

log = structlog.get_logger()

FLUSH_SECONDS = 2.0  # at the end: longest wait for reports that are on their way
SILENT_SECONDS = 60.0  # after a word about lost reports; errors may come by the thousand


@asynccontextmanager
async def open_error_tracking(
    settings: Settings, on_request_end: list[RequestHook]
) -> AsyncIterator[None]:
    """Report from now on, a start that fails as well; without SENTRY_DSN, do and import nothing.

    Args:
        settings: where to, and which version and environment this is.
        on_request_end: of finished exchanges; one more is added.
    """
    if settings.sentry_dsn is None:
        yield
        return
    import sentry_sdk  # noqa: PLC0415 - it takes a tenth of a second, and memory

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a line for every retry
    sentry_sdk.init(
        settings.sentry_dsn.get_secret_value().strip(),
        environment=settings.environment,
        release=f"{SERVICE_NAME}@{settings.version}+{settings.commit_sha}",
        before_send=_without_secrets,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        debug=False,
        enable_backpressure_handling=False,
        include_local_variables=False,
        max_breadcrumbs=0,
        propagate_traces=False,
        send_client_reports=False,
        spotlight=False,
        transport=_transport(),
    )
    on_request_end.append(_report_exchange)
    try:
        yield
    except Exception as error:  # whatever it is: it is raised again
        _report(error, "start", {})
        raise
    finally:
        on_request_end.remove(_report_exchange)
        await asyncio.to_thread(sentry_sdk.get_client().close, FLUSH_SECONDS)
        sentry_sdk.get_global_scope().set_client(None)


def _transport() -> "type[HttpTransport]":
    """The SDK's own, which says nothing of a wrong key or a Sentry that is away; this one does."""
    from sentry_sdk.transport import HttpTransport  # noqa: PLC0415 - slow to import, and unused without a DSN

    class Transport(HttpTransport):
        _silent_until = 0.0

        def on_dropped_event(self, reason: str) -> None:
            if time.monotonic() >= self._silent_until:
                self._silent_until = time.monotonic() + SILENT_SECONDS
                log.warning("reports are lost: Sentry does not accept them", reason=reason)

    return Transport


def _report_exchange(summary: RequestSummary) -> None:
    if summary.error is not None:
        route = summary.route or "(no route)"
        about = {"method": summary.method, "route": route}
        _report(summary.error, f"{summary.method} {route}", about | get_contextvars())


def report_job(error: Exception, job: str) -> None:
    """Report a job that failed for good; without SENTRY_DSN, nothing."""
    sdk = sys.modules.get("sentry_sdk")  # to import it would take a tenth of a second, for nothing
    if sdk is not None and sdk.is_initialized():
        _report(error, job, get_contextvars())


def _report(error: Exception, transaction: str, tags: dict[str, Any]) -> None:
    import sentry_sdk  # noqa: PLC0415 - slow to import, and unused without a DSN
    from sentry_sdk.utils import event_from_exception  # noqa: PLC0415 - slow to import, and unused without a DSN

    event, hint = event_from_exception(
        error,
        client_options=sentry_sdk.get_client().options,
        mechanism={"type": "app", "handled": False},
    )
    event["transaction"] = transaction
    event["tags"] = tags
    sentry_sdk.capture_event(event, hint)


def _without_secrets(event: "Event", _hint: dict[str, Any]) -> "Event":
    """What goes for a log line goes for a report; and the machine's name may be a person's."""
    event.pop("server_name", None)
    clean = cast("Event", redact(None, "", cast("EventDict", event)))
    clean["release"] = event["release"]  # name@version looks like an e-mail address
    return clean
