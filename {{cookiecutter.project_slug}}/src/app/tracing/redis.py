"""Spans of Redis commands: their names, never their keys or values.

OpenTelemetry's instrumentation of Redis is not used. Its spans contain error messages, which quote
keys, and it makes spans outside of recorded traces. redis-py's own telemetry has metrics only, and
no hook for commands. So the public methods through which every command passes are overridden.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from opentelemetry.trace import Tracer
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from app.tracing.spans import client_span, is_recording


class TracedRedis(Redis):
    """A client that shares the connections of another one, and traces commands and pipelines."""

    def __init__(self, tracer: Tracer, other: Redis) -> None:
        super().__init__(connection_pool=other.connection_pool)
        self._tracer = tracer

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with _command_span(self._tracer, str(args[0])):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py has no types here

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return TracedPipeline(
            self._tracer, self.connection_pool, self.response_callbacks, transaction, shard_hint
        )


class TracedPipeline(Pipeline):
    def __init__(self, tracer: Tracer, *args: Any) -> None:
        super().__init__(*args)
        self._tracer = tracer

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        with _command_span(self._tracer, "PIPELINE"):
            return await super().execute(raise_on_error)


def _command_span(tracer: Tracer, name: str) -> AbstractContextManager[object]:
    if not is_recording():
        return nullcontext()
    return client_span(tracer, name, {"db.system.name": "redis", "db.operation.name": name})
