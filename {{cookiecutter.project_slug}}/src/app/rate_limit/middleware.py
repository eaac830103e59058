"""Limits on how often a client may call, counted in Redis for all replicas together.

Windows are fixed: one increment, and so one round trip, tells both whether a request may pass and
what is left. The price is that around the turn of a window a client may have two windows' worth.

The headers are those of draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` says what the
limits are, `RateLimit` what is left of them.
"""

import time
import zlib
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from math import ceil
from typing import Any

import structlog
from fastapi import Depends, Request
from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cache.circuit_breaker import CircuitBreaker, RedisUnavailable
from app.errors import Problem
from app.settings import SERVICE_NAME, Settings
from app.web.problems import render
from app.web.request_summary import is_probe

log = structlog.get_logger()


@dataclass(frozen=True)
class RateLimitStatus:
    """Where a client stands with one limit, after the request that was just counted."""

    name: str
    limit: RateLimitItem
    count: int
    seconds_left: int  # to the end of the window

    @property
    def is_exceeded(self) -> bool:
        return self.count > self.limit.amount

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        remaining = max(0, self.limit.amount - self.count)
        policy = f'"{self.name}";q={self.limit.amount};w={self.limit.get_expiry()}'
        left = f'"{self.name}";r={remaining};t={self.seconds_left}'
        return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())]


class TooManyRequests(Problem):
    """A client has used up one of its limits."""

    status = 429
    title = "Too Many Requests"
    type = "urn:problem:too-many-requests"

    def __init__(self, status: RateLimitStatus) -> None:
        super().__init__(
            f"Try again in {status.seconds_left} s.",
            headers={"Retry-After": str(status.seconds_left)},
        )


class Limiter:
    """Counts requests. While Redis is away nothing is counted and everything passes."""

    def __init__(self, settings: Settings, breaker: CircuitBreaker | None) -> None:
        self.default = parse(settings.rate_limit)
        self._breaker = breaker
        self._storage: RedisStorage | None = None
        self._is_away = False
        if breaker is None:
            log.warning("nothing is rate-limited: REDIS_URL is not set")
        else:
            pool: Any = breaker.redis.connection_pool
            self._storage = RedisStorage(
                "async+redis://",
                implementation="redispy",
                connection_pool=pool,
                key_prefix=f"{SERVICE_NAME}:limits",
            )

    async def count(self, name: str, limit: RateLimitItem, client: str) -> RateLimitStatus | None:
        """Count one request more.

        Args:
            name: of the limit.
            limit: so many in so much time.
            client: whose request it is.

        Returns:
            Where that leaves the client; None if Redis could not be asked.
        """
        storage = self._storage
        if storage is None or self._breaker is None:
            return None
        window_seconds = limit.get_expiry()
        # Not everybody's window turns at the same moment.
        now = time.time() + zlib.crc32(client.encode()) % window_seconds
        window, elapsed = divmod(now, window_seconds)
        key = limit.key_for(name, client, str(int(window)))
        try:
            count = await self._breaker.call(lambda: storage.incr(key, window_seconds))
        except RedisUnavailable as error:
            if not self._is_away:
                self._is_away = True
                log.warning("nothing is rate-limited: Redis is away", reason=str(error))
            return None
        if self._is_away:
            self._is_away = False
            log.info("rate limits are back")
        return RateLimitStatus(name, limit, count, ceil(window_seconds - elapsed))


class RateLimitMiddleware:
    """The limit that every request counts towards, except for probes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_probe(scope["path"]):
            await self._app(scope, receive, send)
            return
        limiter: Limiter = scope["state"]["limiter"]
        rate_limit_statuses: list[RateLimitStatus] = []
        scope["state"]["rate_limit_statuses"] = (
            rate_limit_statuses  # for those of the route's own limits
        )

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for status in rate_limit_statuses for header in status.headers]
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        app = self._app
        status = await limiter.count("default", limiter.default, client_of(scope))
        if status is not None:
            rate_limit_statuses.append(status)
            if status.is_exceeded:
                scope["route"] = _route_of(scope)  # for those who watch: it goes no further
                app = render(TooManyRequests(status))
        await app(scope, receive, send_with_headers)


def _route_of(scope: Scope) -> BaseRoute | None:
    """Where the router would send a request: the first that fits, else that but for its method."""
    routes = {route.matches(scope)[0]: route for route in reversed(scope["app"].routes)}
    return routes.get(Match.FULL) or routes.get(Match.PARTIAL)


def Limit(limit: str) -> Any:  # noqa: N802 - reads like Depends()
    """For a route's `dependencies`: a limit of its own, on top of the one for every request.

    Args:
        limit: as in "5/minute"; each client has its own count.

    Raises:
        ValueError: at import, if it cannot be understood.
    """
    item = parse(limit)

    async def count(request: Request) -> None:
        limiter: Limiter = request.state.limiter
        name = f"{request.method} {request.scope['route'].path}"
        status = await limiter.count(name, item, client_of(request.scope))
        if status is not None:
            request.state.rate_limit_statuses.append(status)
            if status.is_exceeded:
                raise TooManyRequests(status)

    return Depends(count)


def client_of(scope: Scope) -> str:
    """Who is calling: the address, which behind a trusted proxy is the one that the proxy saw."""
    client = scope.get("client")
    return _network(client[0]) if client else "unknown"


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """An IPv6 client is its /64: it may take any address in it for each request."""
    try:
        address = ip_address(host)
    except ValueError:
        return host  # a socket in the file system has no address
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(IPv6Network((address.packed, 64), strict=False))
    return host
