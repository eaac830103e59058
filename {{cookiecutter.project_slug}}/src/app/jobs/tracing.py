"""Spans of jobs: part of the trace of the request that enqueued them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.propagate import extract
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Tracer, format_trace_id
from sqlalchemy import Row
from structlog.contextvars import bound_contextvars

from app.tracing.spans import clean


@contextmanager
def trace_attempt(tracer: Tracer | None, job: Row[Any]) -> Iterator[Span]:
    """Make a span of an attempt, and add its trace id to every log line. No tracer, no span."""
    if tracer is None:
        yield INVALID_SPAN
        return
    with (
        tracer.start_as_current_span(
            job.name,
            context=extract(job.trace_context or {}),
            kind=SpanKind.CONSUMER,
            attributes=clean({"messaging.operation.type": "process", "app.job.id": str(job.id)}),
            record_exception=False,
            set_status_on_exception=False,
        ) as span,
        bound_contextvars(trace_id=format_trace_id(span.get_span_context().trace_id)),
    ):
        yield span
