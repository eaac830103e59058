"""Spans of SQL statements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import SpanKind, Tracer
from sqlalchemy import Connection, Engine, ExceptionContext, event

from app.tracing.spans import LONGEST_TEXT, fail, is_recording


@contextmanager
def traced_statements(tracer: Tracer) -> Iterator[None]:
    """Statements have placeholders where parameters go; the parameters are not looked at."""

    def begin(
        _connection: Connection, _cursor: object, statement: str, _parameters: object, *rest: Any
    ) -> None:
        if is_recording():
            operation = statement.lstrip().partition(" ")[0].upper()
            about = {"db.system.name": "postgresql", "db.operation.name": operation}
            rest[0].span = tracer.start_span(
                operation,
                kind=SpanKind.CLIENT,
                attributes={**about, "db.query.text": statement[:LONGEST_TEXT]},
            )

    def end(
        _connection: Connection, _cursor: object, _statement: str, _parameters: object, *rest: Any
    ) -> None:
        if span := getattr(rest[0], "span", None):
            span.end()

    def end_failed(context: ExceptionContext) -> None:
        if span := getattr(context.execution_context, "span", None):
            error = context.original_exception
            fail(span, getattr(error, "sqlstate", None) or type(error).__qualname__)
            span.end()

    hooks: dict[str, Callable[..., None]] = {
        "before_cursor_execute": begin,
        "after_cursor_execute": end,
        "handle_error": end_failed,
    }
    for name, hook in hooks.items():
        event.listen(Engine, name, hook)
    try:
        yield
    finally:
        for name, hook in hooks.items():
            event.remove(Engine, name, hook)
