"""Spans of jobs: part of the trace of the request that enqueued them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Tracer
from structlog.contextvars import bound_contextvars

from app.jobs.definition import Job, Message
from app.jobs.worker_context import JobMiddleware
from app.tracing.spans import clean, fail


def trace_jobs(tracer: Tracer | None) -> list[JobMiddleware]:
    """Return the middleware that makes a span of each attempt. Without a tracer there is none."""
    if tracer is None:
        return []

    @contextmanager
    def trace_attempt(job: Job, message: Message) -> Iterator[Callable[[Exception], None]]:
        with tracer.start_as_current_span(
            job.name,
            context=extract(message.trace_context),
            kind=SpanKind.CONSUMER,
            attributes=clean({"messaging.operation.type": "process", "app.job.key": message.key}),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            trace_id = trace.format_trace_id(span.get_span_context().trace_id)
            with bound_contextvars(trace_id=trace_id):
                yield lambda error: fail(span, type(error).__qualname__)

    return [trace_attempt]
