"""An HTTP client for other services, with a time limit and the request id."""

import httpx
from opentelemetry.trace.propagation import tracecontext  # option: tracing
from structlog.contextvars import get_contextvars


def open_http_client(
    *, timeout_seconds: float = 5.0, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """Return a client, for `async with`. Open it once, in `open_state()` of `main.py`.

    Args:
        timeout_seconds: the limit of each of these: connect, send, receive, wait for a connection.
        transport: sends the requests, in place of httpx's own.
    """
    return httpx.AsyncClient(
        timeout=timeout_seconds, transport=transport, event_hooks={"request": [_add_ids]}
    )


async def _add_ids(request: httpx.Request) -> None:
    if request_id := get_contextvars().get("request_id"):
        request.headers["X-Request-Id"] = request_id
    tracecontext.TraceContextTextMapPropagator().inject(request.headers)  # option: tracing
