"""Spans of SQL statements."""

from opentelemetry.trace import Span, SpanKind, Tracer
from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.tracing.spans import MAX_TEXT_LENGTH, fail, is_recording

SPAN = "span"  # a key of Connection.info


def trace_statements(tracer: Tracer, engine: AsyncEngine) -> None:
    """Make a span of each statement, with placeholders and without parameters."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def begin(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if is_recording():
            operation = statement.lstrip().partition(" ")[0].upper()
            attributes = {"db.system.name": "postgresql", "db.operation.name": operation}
            connection.info[SPAN] = tracer.start_span(
                operation,
                kind=SpanKind.CLIENT,
                attributes={**attributes, "db.query.text": statement[:MAX_TEXT_LENGTH]},
            )

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def end(connection: Connection, *_: object) -> None:
        span: Span | None = connection.info.pop(SPAN, None)
        if span is not None:
            span.end()

    @event.listens_for(engine.sync_engine, "handle_error")
    def end_failed(context: ExceptionContext) -> None:
        if context.connection is None or context.execution_context is None:
            return  # no statement was running
        span: Span | None = context.connection.info.pop(SPAN, None)
        if span is not None:
            error = context.original_exception
            fail(span, getattr(error, "sqlstate", None) or type(error).__qualname__)
            span.end()
