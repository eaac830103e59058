"""Call other services, with bounded waits and the id of the request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from opentelemetry.trace.propagation import tracecontext  # option: tracing

from app.logging.context import current_request_id


@asynccontextmanager
async def open_http_client(
    *, timeout_seconds: float = 5.0, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client, in the lifespan of `main.py`: it keeps connections open.

    Args:
        timeout_seconds: for each of connecting, sending, waiting for bytes and for a connection.
        transport: sends the requests, in place of httpx's own.
    """
    async with httpx.AsyncClient(
        timeout=timeout_seconds, transport=transport, event_hooks={"request": [_add_ids]}
    ) as client:
        yield client


async def _add_ids(request: httpx.Request) -> None:
    request_id = current_request_id()
    if request_id:
        request.headers["X-Request-Id"] = request_id
    tracecontext.TraceContextTextMapPropagator().inject(request.headers)  # option: tracing
