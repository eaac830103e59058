"""An HTTP client for other services, with limits of time and size, and the request id."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
from opentelemetry.trace.propagation import tracecontext  # option: tracing
from structlog.contextvars import get_contextvars


class ResponseTooLarge(httpx.TransportError):
    """A response has more bytes than its client accepts."""


def open_http_client(
    *,
    timeout_seconds: float = 5.0,
    max_response_bytes: int | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """Return a client, for `async with`. Open it once, in `open_state()` of `main.py`.

    Args:
        timeout_seconds: the limit of each of these: connect, send, receive, wait for a connection.
        max_response_bytes: the limit of a response's body. A larger one raises ResponseTooLarge.
        transport: sends the requests, in place of httpx's own.
    """
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [_add_ids]}
    headers = {}
    if max_response_bytes is not None:
        headers["Accept-Encoding"] = "identity"  # a small compressed body can be a large one
        hooks["response"] = [_limit_body(max_response_bytes)]
    return httpx.AsyncClient(
        timeout=timeout_seconds, transport=transport, event_hooks=hooks, headers=headers
    )


async def _add_ids(request: httpx.Request) -> None:
    if request_id := get_contextvars().get("request_id"):
        request.headers["X-Request-Id"] = request_id
    tracecontext.TraceContextTextMapPropagator().inject(request.headers)  # option: tracing


def _limit_body(max_bytes: int) -> Callable[[httpx.Response], Awaitable[None]]:
    async def limit(response: httpx.Response) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ResponseTooLarge("the response is compressed", request=response.request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _LimitedStream(response.stream, max_bytes)

    return limit


class _LimitedStream(httpx.AsyncByteStream):
    """Pass the bytes of a stream on, up to a number of them."""

    def __init__(self, stream: httpx.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for chunk in self._stream:
            count += len(chunk)
            if count > self._max_bytes:
                raise ResponseTooLarge(f"the response has more than {self._max_bytes} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
