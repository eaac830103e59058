"""Spans of SQL statements.

OpenTelemetry's instrumentation of SQLAlchemy is not used. Its spans contain error messages, which
quote values of rows. It makes spans outside of traces, and patches SQLAlchemy for the process.
"""

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Tracer
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
        connection.info.pop(SPAN, INVALID_SPAN).end()

    @event.listens_for(engine.sync_engine, "handle_error")
    def end_failed(context: ExceptionContext) -> None:
        if context.connection is not None and context.execution_context is not None:
            span: Span = context.connection.info.pop(SPAN, INVALID_SPAN)
            error = context.original_exception
            fail(span, getattr(error, "sqlstate", None) or type(error).__qualname__)
            span.end()
