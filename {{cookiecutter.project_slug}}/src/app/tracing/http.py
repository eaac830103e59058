"""Spans of calls to other services, and the trace's context for them."""

from contextlib import AbstractContextManager
from typing import Any

import httpx
from opentelemetry.trace import Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing.spans import LONGEST_TEXT, Method, client_span, fail, is_recording, replaced

W3C = TraceContextTextMapPropagator()  # https://www.w3.org/TR/trace-context/


def traced_calls(tracer: Tracer) -> AbstractContextManager[None]:
    def trace_call(send: Method) -> Method:
        async def send_traced(
            client: httpx.AsyncClient, request: httpx.Request, **kwargs: Any
        ) -> httpx.Response:
            if not is_recording():
                W3C.inject(request.headers)  # that it is not sampled is to be known as well
                response: httpx.Response = await send(client, request, **kwargs)
                return response
            url = request.url
            about = {
                "http.request.method": request.method,
                "server.address": url.host,
                "url.full": f"{url.scheme}://{url.netloc.decode()}{url.path}"[:LONGEST_TEXT],
            }
            with client_span(tracer, request.method, about) as span:
                W3C.inject(request.headers)
                response = await send(client, request, **kwargs)
                span.set_attribute("http.response.status_code", response.status_code)
                if response.is_error:
                    fail(span, str(response.status_code))
                return response

        return send_traced

    return replaced(httpx.AsyncClient, "send", trace_call)
