"""The parts that all spans have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.logging.redaction import redact

MAX_TEXT_LENGTH = 2000
W3C = TraceContextTextMapPropagator()  # https://www.w3.org/TR/trace-context/


def clean(attributes: dict[str, Any]) -> dict[str, Any]:
    """Redact attributes as the logs are redacted."""
    return dict(redact(None, "", attributes))


def fail(span: Span, reason: str) -> None:
    """Mark a span as failed. The reason is a type or code: messages may contain anything."""
    span.set_attribute("error.type", reason)
    span.set_status(StatusCode.ERROR)


def is_recording() -> bool:
    """Return whether the code runs in a request or job whose trace is recorded."""
    return trace.get_current_span().is_recording()


@contextmanager
def client_span(tracer: Tracer, name: str, attributes: dict[str, Any]) -> Iterator[Span]:
    """Make a span of a call to another service."""
    with tracer.start_as_current_span(
        name,
        kind=SpanKind.CLIENT,
        attributes=clean(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            fail(span, type(error).__qualname__)
            raise
