"""The default rate limit, which counts every request except probes."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cache.read_through import Cache
from app.rate_limit.client import client_of
from app.rate_limit.limiter import Limiter, RateLimitStatus
from app.rate_limit.problems import TooManyRequests
from app.rate_limit.settings import RateLimitSettings
from app.web.problems import render
from app.web.request_summary import is_probe
from app.web.routes import ROUTE_TEMPLATE, find_route


def create_limiter(settings: RateLimitSettings, cache: Cache) -> Limiter:
    """Return a limiter that shares the connections and the circuit breaker of the cache."""
    return Limiter(settings, cache.breaker)


class RateLimitMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_probe(scope["path"]):
            await self._app(scope, receive, send)
            return
        limiter: Limiter = scope["state"]["limiter"]
        statuses: list[RateLimitStatus] = []
        scope["state"]["rate_limit_statuses"] = statuses  # limits of routes are appended

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for status in statuses for header in status.headers]
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        app = self._app
        status = await limiter.count("default", limiter.default, client_of(scope))
        if status is not None:
            statuses.append(status)
            if status.is_exceeded:
                scope["state"][ROUTE_TEMPLATE] = find_route(scope)
                app = render(TooManyRequests(status))
        await app(scope, receive, send_with_headers)
