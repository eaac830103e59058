"""What the spans of calls to something else have in common."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from app.logging.redaction import redact

LONGEST_TEXT = 2000

Method = Callable[..., Any]


def clean(attributes: dict[str, Any]) -> dict[str, Any]:
    """Without secrets and personal data, as in the logs."""
    return dict(redact(None, "", attributes))


def fail(span: Span, reason: str) -> None:
    """Errors are named and not quoted: their words may be anything."""
    span.set_attribute("error.type", reason)
    span.set_status(StatusCode.ERROR)


def is_recording() -> bool:
    """Whether this is part of a request that is sampled."""
    return trace.get_current_span().is_recording()


@contextmanager
def client_span(tracer: Tracer, name: str, attributes: dict[str, Any]) -> Iterator[Span]:
    """A call to something else."""
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


@contextmanager
def replaced(owner: type | ModuleType, name: str, by: Callable[[Method], Method]) -> Iterator[None]:
    """Put another method or function in the place of one, for as long as this is open."""
    original: Method = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(by(original)))
    try:
        yield
    finally:
        setattr(owner, name, original)
