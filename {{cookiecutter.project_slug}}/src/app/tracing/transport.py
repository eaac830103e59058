"""Spans of HTTP calls to other services."""

import httpx
from opentelemetry.trace import Tracer

from app.tracing.spans import MAX_TEXT_LENGTH, W3C, client_span, fail, is_recording


class TracedTransport(httpx.AsyncBaseTransport):
    """Make a span of each call, and propagate it in the `traceparent` header."""

    def __init__(self, tracer: Tracer, transport: httpx.AsyncBaseTransport) -> None:
        self._tracer = tracer
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not is_recording():
            return await self._transport.handle_async_request(request)
        url = request.url
        attributes = {
            "http.request.method": request.method,
            "server.address": url.host,
            "url.full": f"{url.scheme}://{url.netloc.decode()}{url.path}"[:MAX_TEXT_LENGTH],
        }
        with client_span(self._tracer, request.method, attributes) as span:
            W3C.inject(request.headers)
            response = await self._transport.handle_async_request(request)
            span.set_attribute("http.response.status_code", response.status_code)
            if response.is_error:
                fail(span, str(response.status_code))
            return response

    async def aclose(self) -> None:
        await self._transport.aclose()


def traced_transport(
    tracer: Tracer | None, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncBaseTransport | None:
    """Return a transport for `open_http_client` that traces calls. Without a tracer, trace none.

    Args:
        tracer: `state["tracer"]`.
        transport: sends the requests. By default httpx's own, without the proxies that
            HTTP_PROXY and HTTPS_PROXY name.
    """
    if tracer is None:
        return transport
    return TracedTransport(tracer, transport or httpx.AsyncHTTPTransport())
