"""Sending traces to a collector over OTLP; imported only where there is one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from threading import Thread

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Tracer

from app.service_info import SERVICE_NAME, service_version
from app.tracing.settings import TracingSettings

log = structlog.get_logger()

EXPORT_SECONDS = 5.0  # longest wait for the collector, in a thread of its own
FLUSH_SECONDS = 2.0  # at the end: longest wait for spans that are on their way


class Exporter(OTLPSpanExporter):
    """Says once that the collector is away, and once that it is back."""

    _is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            log.warning("traces are lost: the collector does not accept them")
        elif self._is_away and not is_away:
            log.info("traces are accepted again")
        self._is_away = is_away
        return result


@asynccontextmanager
async def open_tracer(settings: TracingSettings, endpoint: str) -> AsyncIterator[Tracer]:
    """A tracer whose spans are sent in batches, by a thread; what a full queue cannot take is lost.

    Args:
        settings: which share of the requests, and what this service is.
        endpoint: of the collector, without `/v1/traces`.
    """
    # It repeats itself: see Exporter. Of a full queue the SDK speaks elsewhere, every 20 s at most.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": SERVICE_NAME,
                "service.version": service_version(),
                "deployment.environment.name": settings.environment,
                "vcs.ref.head.revision": settings.commit_sha,
            }
        ),
        sampler=ParentBasedTraceIdRatio(settings.trace_ratio),
        shutdown_on_exit=False,
    )
    exporter = Exporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer(SERVICE_NAME)
    finally:
        # A collector that hangs must not hold up the end: the thread is left behind.
        end = Thread(target=provider.shutdown, daemon=True)
        end.start()
        await asyncio.to_thread(end.join, FLUSH_SECONDS)
