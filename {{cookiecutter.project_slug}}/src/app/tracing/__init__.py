"""Traces: a span for every request, and within it for what the request asks of others.

FastAPI's own spans are not used: they carry query strings, and cost about twice as much. What is
not part of a request that is sampled leaves no span.
"""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from http import HTTPStatus

from fastapi import FastAPI
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logging.context import LogContext
from app.tracing.http import W3C, traced_calls
from app.tracing.redis import traced_commands  # option: redis
from app.tracing.settings import TracingSettings
from app.tracing.spans import LONGEST_TEXT, clean, fail
from app.tracing.sql import traced_statements
from app.web.request_summary import is_probe

CONTEXT_HEADERS = {b"traceparent", b"tracestate"}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}


def trace_requests(app: FastAPI, settings: TracingSettings) -> None:
    """Add the layer that makes a span of every request but probes; without an endpoint, none."""
    if settings.otel_exporter_otlp_endpoint is not None:
        app.add_middleware(TracingMiddleware)


@asynccontextmanager
async def open_tracing(settings: TracingSettings) -> AsyncIterator[Tracer | None]:
    """Trace from now on; without OTEL_EXPORTER_OTLP_ENDPOINT, do and import nothing."""
    if settings.otel_exporter_otlp_endpoint is None:
        yield None
        return
    from app.tracing.export import open_tracer  # noqa: PLC0415 - the SDK takes time and memory

    endpoint = settings.otel_exporter_otlp_endpoint.get_secret_value().strip()
    async with open_tracer(settings, endpoint) as tracer:
        with ExitStack() as stack:
            stack.enter_context(traced_statements(tracer))
            stack.enter_context(traced_calls(tracer))
            stack.enter_context(traced_commands(tracer))  # option: redis
            yield tracer


class TracingMiddleware:
    """A span for every request, and its trace id for every log line in it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_probe(scope["path"]):
            await self._app(scope, receive, send)
            return
        tracer: Tracer = scope["state"]["tracer"]
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        parent = W3C.extract(
            {k.decode(): v.decode("latin-1") for k, v in scope["headers"] if k in CONTEXT_HEADERS}
        )
        span = tracer.start_span(method, context=parent, kind=SpanKind.SERVER)
        status = 0

        async def send_and_observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            with LogContext(trace_id=trace.format_trace_id(span.get_span_context().trace_id)):
                await self._app(scope, receive, send_and_observe)
        finally:
            otel_context.detach(token)
            if span.is_recording():
                _describe_request(span, scope, method, status)
            span.end()


def _describe_request(span: Span, scope: Scope, method: str, status: int) -> None:
    """Names are those of OpenTelemetry's semantic conventions; the query string is left out."""
    route = getattr(scope.get("route"), "path", None)
    if route:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    path = scope["path"][:LONGEST_TEXT]
    about = {"http.request.method": method, "url.scheme": scope["scheme"], "url.path": path}
    span.set_attributes(clean({**about, "http.response.status_code": status}))
    if status == 0 or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        fail(span, str(status or "connection lost"))
