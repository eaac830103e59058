"""Spans of Redis commands: their names, never their keys or values."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Tracer
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from app.tracing.spans import Method, client_span, is_recording, replaced


@contextmanager
def traced_commands(tracer: Tracer) -> Iterator[None]:
    def trace_as(name: str | None) -> Callable[[Method], Method]:
        def trace_command(execute: Method) -> Method:
            async def execute_traced(redis: Redis, *args: Any, **kwargs: Any) -> Any:
                if not is_recording():
                    return await execute(redis, *args, **kwargs)
                command = name or str(args[0])
                about = {"db.system.name": "redis", "db.operation.name": command}
                with client_span(tracer, command, about):
                    return await execute(redis, *args, **kwargs)

            return execute_traced

        return trace_command

    with (
        replaced(Redis, "execute_command", trace_as(None)),
        replaced(Pipeline, "execute", trace_as("PIPELINE")),
    ):
        yield
