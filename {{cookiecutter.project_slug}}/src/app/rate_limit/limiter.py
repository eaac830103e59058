"""Count requests in Redis for all replicas together, and refuse those over a limit.

Windows are fixed, so that one increment, which is one round trip, decides about a request. A client
can send twice the limit within a short time around the end of a window.
"""

import time
import zlib
from dataclasses import dataclass
from math import ceil

import structlog
from limits import RateLimitItem, parse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors
from app.cache.circuit_breaker import CircuitBreaker, RedisUnavailable
from app.rate_limit.settings import RateLimitSettings
from app.service_info import SERVICE_NAME
from app.web.client import client_of
from app.web.problems import render
from app.web.request_summary import is_probe
from app.web.routes import ROUTE_TEMPLATE, matching_routes

log = structlog.get_logger()

# The script of `limits`, whose storage would open a second client beside the cache's.
INCREMENT = """
local count = redis.call("INCR", KEYS[1])
if count == 1 then redis.call("EXPIRE", KEYS[1], ARGV[1]) end
return count
"""


@dataclass(frozen=True)
class RateLimitStatus:
    """One limit of a client, after the request that was just counted.

    The headers are those of draft-ietf-httpapi-ratelimit-headers.
    """

    name: str
    limit: RateLimitItem
    count: int
    seconds_left: int  # until the end of the window

    @property
    def is_exceeded(self) -> bool:
        return self.count > self.limit.amount

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        remaining = max(0, self.limit.amount - self.count)
        policy = f'"{self.name}";q={self.limit.amount};w={self.limit.get_expiry()}'
        left = f'"{self.name}";r={remaining};t={self.seconds_left}'
        return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())]


class TooManyRequests(errors.TooManyRequests):
    """The client has exceeded a rate limit."""


class Limiter:
    """Count requests. While Redis is down, requests pass uncounted."""

    def __init__(self, settings: RateLimitSettings, breaker: CircuitBreaker | None) -> None:
        self.default = parse(settings.rate_limit)
        self._breaker = breaker
        self._increment = None if breaker is None else breaker.redis.register_script(INCREMENT)
        self._is_down = False
        if breaker is None:
            log.warning("rate limiting is disabled: REDIS_URL is not set")

    async def check(self, scope: Scope, name: str, limit: RateLimitItem) -> None:
        """Count a request, and add the status of the limit to the headers of its response.

        Raises:
            TooManyRequests: the client has exceeded the limit.
        """
        status = await self.count(name, limit, client_of(scope))
        if status is not None:
            scope["state"].setdefault("rate_limit_statuses", []).append(status)
            if status.is_exceeded:
                detail = f"Try again in {status.seconds_left} s."
                raise TooManyRequests(detail, retry_after_seconds=status.seconds_left)

    async def count(self, name: str, limit: RateLimitItem, client: str) -> RateLimitStatus | None:
        """Count one request.

        Args:
            name: of the limit.
            limit: the number of requests, and the length of the window.
            client: the client that sent the request.

        Returns:
            The status of the limit; None if Redis is unavailable.
        """
        increment = self._increment
        if increment is None or self._breaker is None:
            return None
        window_seconds = limit.get_expiry()
        # The windows of clients end at different moments.
        now = time.time() + zlib.crc32(client.encode()) % window_seconds
        window, elapsed = divmod(now, window_seconds)
        key = f"{SERVICE_NAME}:limits:{limit.key_for(name, client, str(int(window)))}"
        try:
            count: int = await self._breaker.call(lambda: increment([key], [window_seconds]))
        except RedisUnavailable as error:
            if not self._is_down:
                self._is_down = True
                log.warning("rate limiting is disabled: Redis is unavailable", reason=str(error))
            return None
        if self._is_down:
            self._is_down = False
            log.info("rate limiting is enabled again")
        return RateLimitStatus(name, limit, count, ceil(window_seconds - elapsed))


class RateLimitMiddleware:
    """Apply the default limit to every request except probes, and send the headers of limits."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_probe(scope["path"]):
            await self._app(scope, receive, send)
            return
        statuses: list[RateLimitStatus] = []
        scope["state"]["rate_limit_statuses"] = statuses

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for status in statuses for header in status.headers]
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        app = self._app
        limiter: Limiter = scope["state"]["limiter"]
        try:
            await limiter.check(scope, "default", limiter.default)
        except TooManyRequests as error:
            scope["state"][ROUTE_TEMPLATE] = _find_route(scope)
            app = render(error)
        await app(scope, receive, send_with_headers)


def _find_route(scope: Scope) -> str | None:
    """Return the path template of the route that a request would reach, or None."""
    other_method = None
    for route, match in matching_routes(scope):
        if match is Match.FULL:
            return route.path
        other_method = other_method or route.path
    return other_method
