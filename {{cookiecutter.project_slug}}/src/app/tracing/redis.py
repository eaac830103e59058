"""Spans of Redis commands: their names, never their keys or values.

OpenTelemetry's instrumentation of Redis is not used. Its spans contain error messages, which quote
keys, and it makes spans outside of recorded traces. redis-py's own telemetry has metrics only, and
no hook for commands. So the public method through which every command passes is overridden.
A pipeline does not pass through it, and has no spans.
"""

from contextlib import nullcontext
from typing import Any

from opentelemetry.trace import Tracer
from redis.asyncio import Redis

from app.tracing.spans import client_span, is_recording


class TracedRedis(Redis):
    """A client that shares the connections of another one, and traces commands."""

    def __init__(self, tracer: Tracer, other: Redis) -> None:
        super().__init__(connection_pool=other.connection_pool)
        self._tracer = tracer

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        name = str(args[0])
        attributes = {"db.system.name": "redis", "db.operation.name": name}
        with client_span(self._tracer, name, attributes) if is_recording() else nullcontext():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py has no types here
