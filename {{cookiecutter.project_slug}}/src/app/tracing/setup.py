"""Open the tracer, and trace the objects that call other services."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from opentelemetry.trace import Tracer

from app.tracing.middleware import TracingMiddleware
from app.tracing.redis import TracedRedis  # option: redis
from app.tracing.settings import TracingSettings
from app.tracing.sql import trace_statements


def trace_requests(app: FastAPI, settings: TracingSettings) -> None:
    """Add the tracing middleware. Without OTEL_EXPORTER_OTLP_ENDPOINT, do nothing."""
    if settings.otel_exporter_otlp_endpoint is not None:
        app.add_middleware(TracingMiddleware)


@asynccontextmanager
async def open_tracing(
    settings: TracingSettings, state: Mapping[str, Any]
) -> AsyncIterator[Tracer | None]:
    """Open a tracer. Without OTEL_EXPORTER_OTLP_ENDPOINT, do and import nothing.

    Args:
        settings: the endpoint, and the share of requests.
        state: the objects whose calls are traced. Objects that are added later are not.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        yield None
        return
    from app.tracing.export import open_tracer  # noqa: PLC0415 - the SDK takes time and memory

    endpoint = settings.otel_exporter_otlp_endpoint.get_secret_value().strip()
    async with open_tracer(settings, endpoint) as tracer:
        trace_statements(tracer, state["database"].engine)
        cache = state.get("cache")  # option: redis
        if cache is not None and cache.breaker is not None:  # option: redis
            cache.breaker.redis = TracedRedis(tracer, cache.breaker.redis)  # option: redis
        yield tracer
