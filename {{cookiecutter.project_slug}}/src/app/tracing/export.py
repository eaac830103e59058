"""Send spans to a collector over OTLP. Importing this module loads OpenTelemetry's SDK."""

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

EXPORT_SECONDS = 5.0  # longest wait for the collector, in the thread that exports
FLUSH_SECONDS = 2.0  # longest wait at the end, for spans that are being sent


class LoggingExporter(OTLPSpanExporter):
    """Log once when the collector stops accepting spans, and once when it accepts them again."""

    is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        was_failing, self.is_failing = self.is_failing, result is not SpanExportResult.SUCCESS
        if self.is_failing and not was_failing:
            log.warning("traces are lost: the collector does not accept them")
        elif was_failing and not self.is_failing:
            log.info("traces are accepted again")
        return result


@asynccontextmanager
async def open_tracer(settings: TracingSettings, endpoint: str) -> AsyncIterator[Tracer]:
    """Open a tracer. A thread sends its spans in batches. Spans beyond its queue are dropped.

    Args:
        settings: the share of requests, and the attributes of the service.
        endpoint: the URL of the collector, without `/v1/traces`.
    """
    # The exporter logs every failure; LoggingExporter logs the first. The SDK logs a full queue
    # under another name, at most every 20 seconds.
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
    exporter = LoggingExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer(SERVICE_NAME)
    finally:
        # provider.shutdown() may wait for a collector that does not answer.
        thread = Thread(target=provider.shutdown, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, FLUSH_SECONDS)
