"""Spans of jobs: a part of the trace of the request that enqueued them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Tracer

from app.jobs import attempts
from app.jobs.definition import Job, Message
from app.logging.setup import LogContext
from app.tracing.http import W3C
from app.tracing.spans import clean, fail, replaced


@contextmanager
def traced_jobs(tracer: Tracer | None) -> Iterator[None]:
    """Make a span of every attempt, for as long as this is open; without a tracer, of none."""
    if tracer is None:
        yield
        return

    @contextmanager
    def span_of(job: Job, message: Message) -> Iterator[Callable[[Exception], None]]:
        with tracer.start_as_current_span(
            job.name,
            context=W3C.extract(message.trace_context),
            kind=SpanKind.CONSUMER,
            attributes=clean({"messaging.operation.type": "process", "app.job.key": message.key}),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            trace_id = trace.format_trace_id(span.get_span_context().trace_id)
            with LogContext(trace_id=trace_id):
                yield lambda error: fail(span, type(error).__qualname__)

    with replaced(attempts, "surroundings", lambda _nothing: span_of):
        yield
