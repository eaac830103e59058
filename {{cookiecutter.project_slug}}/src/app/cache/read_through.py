"""A read-through cache on Redis or Valkey. Without it the service is slower, never wrong or down.

Invalidation leaves a mark for a moment instead of deleting, and values are only written where
nothing is: a reader that fetched the old row just before a change cannot store it just after.
"""

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import ceil
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from app.cache.circuit_breaker import CircuitBreaker, RedisUnavailable, create_pool
from app.settings import SERVICE_NAME, Settings
from app.web.dependencies import WriteTransaction
from app.web.health import Check, Health

P = ParamSpec("P")
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")

TTL_SECONDS = 60  # bounds staleness when an invalidation is lost with a failing Redis
MARK = b""
# A mark outlives any read: the longest statement, and a write that is late (LATE_SECONDS).
MARK_MARGIN_SECONDS = 5


class Cache:
    """Values by key; every operation succeeds, whether Redis answers or not."""

    def __init__(self, breaker: CircuitBreaker | None, *, mark_seconds: int = 10) -> None:
        self.breaker = breaker
        self._mark_seconds = mark_seconds

    async def get(self, key: str) -> bytes | None:
        value = await self._attempt(lambda redis: redis.get(_name(key)))
        return value or None  # a mark is as good as nothing

    async def put(self, key: str, value: bytes) -> None:
        """Store for a minute, unless something is there: a newer value, or an invalidation."""
        await self._attempt(lambda redis: redis.set(_name(key), value, nx=True, ex=TTL_SECONDS))

    async def invalidate(self, key: str) -> None:
        """Forget a value; worth a try even if Redis failed a moment ago."""
        await self._attempt(lambda redis: self._mark(redis, _name(key)), even_open=True)

    async def _mark(self, redis: Redis, name: str) -> None:
        try:
            await redis.set(name, MARK, ex=self._mark_seconds)
        except OutOfMemoryError:
            await redis.delete(name)  # a full Redis refuses to write, and it still deletes

    async def _attempt(
        self, command: Callable[[Redis], Awaitable[Any]], *, even_open: bool = False
    ) -> Any:
        breaker = self.breaker
        if breaker is None:
            return None
        with suppress(RedisUnavailable):
            return await breaker.call(lambda: command(breaker.redis), even_open=even_open)


def _name(key: str) -> str:
    return f"{SERVICE_NAME}:{key}"


@asynccontextmanager
async def open_cache(settings: Settings, health: Health) -> AsyncIterator[Cache]:
    """Connect on first use; without REDIS_URL, a cache that never holds anything, and no check."""
    if settings.redis_url is None:
        yield Cache(None)
        return
    pool = create_pool(settings.redis_url.get_secret_value(), settings.database_pool_size)
    mark_seconds = ceil(settings.database_statement_timeout_seconds) + MARK_MARGIN_SECONDS
    async with Redis.from_pool(pool) as redis:
        breaker = CircuitBreaker(redis)
        health.add(Check("redis", partial(check_writes, redis), critical=False))
        try:
            yield Cache(breaker, mark_seconds=mark_seconds)
        finally:
            await breaker.close()


async def check_writes(redis: Redis) -> None:
    """Write a key that expires: a Redis that is full, or a replica, answers a PING all the same."""
    await redis.set(_name("health-check"), b"", ex=TTL_SECONDS)


async def get_cache(request: Request) -> Cache:
    cache: Cache = request.state.cache
    return cache


CacheDep = Annotated[Cache, Depends(get_cache)]


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

        return _with_parameters(find_cached, _cache=CacheDep)

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

        return _with_parameters(change_and_forget, _cache=CacheDep, _transaction=WriteTransaction)

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
