"""A read-through cache on Redis or Valkey. Without it the service is slower, never wrong or down.

Invalidation leaves a mark for a moment instead of deleting, and values are only written where
nothing is: a reader that fetched the old row just before a change cannot store it just after.
"""

import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import ceil
from typing import Annotated, Any, ParamSpec, TypeVar

import structlog
from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from app.dependencies import WriteTransaction
from app.health import Check, Health
from app.settings import SERVICE_NAME, Settings

log = structlog.get_logger()

P = ParamSpec("P")
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")

TIMEOUT_SECONDS = 0.25  # of every command and connection attempt
POOL_WAIT_SECONDS = 1.0  # for a free connection: a crowd is no outage
PAUSE_SECONDS = 1.0  # after a failure Redis is left alone for this long
TTL_SECONDS = 60  # bounds staleness when an invalidation is lost with a failing Redis
MARK = b""
MARK_MARGIN_SECONDS = 5  # a mark outlives any read: the longest statement, and a bit


class Cache:
    """Values by key; every operation succeeds, whether Redis answers or not."""

    def __init__(self, redis: Redis | None, *, mark_seconds: int = 10) -> None:
        self.redis = redis
        self._mark_seconds = mark_seconds
        self._paused_until = 0.0

    async def get(self, key: str) -> bytes | None:
        return await self._attempt("get", _name(key)) or None  # a mark is as good as nothing

    async def put(self, key: str, value: bytes) -> None:
        """Store for a minute, unless something is there: a newer value, or an invalidation."""
        await self._attempt("set", _name(key), value, nx=True, ex=TTL_SECONDS)

    async def invalidate(self, key: str) -> None:
        """Forget a value; worth a try even if Redis failed a moment ago."""
        await self._attempt("set", _name(key), MARK, ex=self._mark_seconds, even_paused=True)

    async def _attempt(
        self, command: str, *args: Any, even_paused: bool = False, **kwargs: Any
    ) -> Any:
        is_paused = time.monotonic() < self._paused_until and not even_paused
        if self.redis is None or is_paused:
            return None
        try:
            return await getattr(self.redis, command)(*args, **kwargs)
        except (RedisError, OSError, TimeoutError) as error:
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            log.warning("cache unavailable", reason=f"{type(error).__name__}: {error}")
            return None


def _name(key: str) -> str:
    return f"{SERVICE_NAME}:{key}"


@asynccontextmanager
async def open_cache(settings: Settings, health: Health) -> AsyncIterator[Cache]:
    """Connect on first use; without REDIS_URL, a cache that never holds anything, and no check."""
    if settings.redis_url is None:
        yield Cache(None)
        return
    pool = BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        max_connections=settings.database_pool_size,
        timeout=POOL_WAIT_SECONDS,  # the plain pool would fail at once
    )
    mark_seconds = ceil(settings.database_statement_timeout_seconds) + MARK_MARGIN_SECONDS
    async with Redis.from_pool(pool) as redis:
        health.add(Check("redis", redis.ping, critical=False))
        yield Cache(redis, mark_seconds=mark_seconds)


async def get_cache(request: Request) -> Cache:
    cache: Cache = request.state.cache
    return cache


CacheOfService = Annotated[Cache, Depends(get_cache)]


def read_through(
    key: str, model: type[M]
) -> Callable[[Callable[P, Awaitable[M]]], Callable[..., Awaitable[M]]]:
    """Decorate a dependency or route that finds one thing: look into the cache first.

    Args:
        key: with the function's parameters in braces, as in "order:{order_id}".
        model: what the function returns, and what is stored, as JSON.
    """

    def decorate(find: Callable[P, Awaitable[M]]) -> Callable[..., Awaitable[M]]:
        @functools.wraps(find)
        async def find_cached(*, _cache: Cache, **kwargs: Any) -> M:
            name = key.format(**kwargs)
            stored = await _cache.get(name)
            if stored is not None:
                with suppress(ValidationError):  # stored by a version with another shape
                    return model.model_validate_json(stored)
            found = await find(**kwargs)  # type: ignore[call-arg]  # FastAPI calls by keyword only: P has no positional part
            await _cache.put(name, found.model_dump_json().encode())
            return found

        return _with_parameters(find_cached, _cache=CacheOfService)

    return decorate


def invalidates(
    key: str,
) -> Callable[[Callable[P, Awaitable[R]]], Callable[..., Awaitable[R]]]:
    """Decorate a route that changes one thing: forget it once the change is committed."""

    def decorate(change: Callable[P, Awaitable[R]]) -> Callable[..., Awaitable[R]]:
        @functools.wraps(change)
        async def change_and_forget(
            *, _cache: Cache, _transaction: WriteTransaction, **kwargs: Any
        ) -> R:
            name = key.format(**kwargs)
            _transaction.after_commit(lambda: _cache.invalidate(name))
            return await change(**kwargs)  # type: ignore[call-arg]  # FastAPI calls by keyword only: P has no positional part

        return _with_parameters(
            change_and_forget, _cache=CacheOfService, _transaction=WriteTransaction
        )

    return decorate


def _with_parameters(function: Callable[..., R], **annotations: Any) -> Callable[..., R]:
    """Let FastAPI inject more into a wrapper; within one request it injects the same objects."""
    signature = inspect.signature(function)
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
        for name, annotation in annotations.items()
    ]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect.signature() prefers it, but no type declares it
        parameters=[*signature.parameters.values(), *extra]
    )
    return function
