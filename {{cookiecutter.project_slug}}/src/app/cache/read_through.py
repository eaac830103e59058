"""A read-through cache on Redis or Valkey. An outage of Redis makes the service slower, not wrong.

Invalidation replaces the value by an empty marker for a moment, and a value is stored only where no
entry is. So a reader that loaded the old row before a change cannot store it afterwards.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from math import ceil
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError
from sqlalchemy.ext.asyncio import AsyncSession

from app.cache.circuit_breaker import CircuitBreaker, RedisUnavailable, create_pool
from app.cache.settings import RedisSettings
from app.db.session import Database, after_commit
from app.service_info import SERVICE_NAME
from app.web.checks import Check

M = TypeVar("M", bound=BaseModel)

POOL_SIZE = 32
TTL_SECONDS = 60  # bounds the age of a value whose invalidation was lost in an outage
MARKER = b""
# A marker lives longer than any load: the longest statement, and a late write (LATE_SECONDS).
MARKER_MARGIN_SECONDS = 5


class Cache:
    """Values by key. Every operation succeeds, whether Redis answers or not.

    Attributes:
        breaker: runs the commands; None without REDIS_URL.
    """

    def __init__(self, breaker: CircuitBreaker | None, *, marker_seconds: int = 10) -> None:
        self.breaker = breaker
        self._marker_seconds = marker_seconds

    async def get_or_load(self, key: str, model: type[M], load: Callable[[], Awaitable[M]]) -> M:
        """Return the cached value, or load and store it.

        Args:
            key: names the value.
            model: the type of the value. It is stored as JSON.
            load: returns the value from the database. Its errors pass through.
        """
        name = _name(key)
        stored = await self._attempt(lambda redis: redis.get(name))
        if stored:
            with suppress(ValidationError):  # stored by a version with another schema
                return model.model_validate_json(stored)
        loaded = await load()
        value = loaded.model_dump_json().encode()
        await self._attempt(lambda redis: redis.set(name, value, nx=True, ex=TTL_SECONDS))
        return loaded

    async def invalidate(self, key: str) -> None:
        """Remove a value. This sends a command even if Redis failed a moment ago."""
        await self._attempt(lambda redis: self._mark(redis, _name(key)), ignore_open_circuit=True)

    def invalidate_on_commit(self, session: AsyncSession, key: str) -> None:
        """Remove a value as soon as the session's transaction is committed."""
        after_commit(session, partial(self.invalidate, key))

    async def _mark(self, redis: Redis, name: str) -> None:
        try:
            await redis.set(name, MARKER, ex=self._marker_seconds)
        except OutOfMemoryError:
            await redis.delete(name)  # a full Redis refuses to write, and still deletes

    async def _attempt(
        self, command: Callable[[Redis], Awaitable[Any]], *, ignore_open_circuit: bool = False
    ) -> Any:
        breaker = self.breaker
        if breaker is None:
            return None
        with suppress(RedisUnavailable):
            return await breaker.call(
                lambda: command(breaker.redis), ignore_open_circuit=ignore_open_circuit
            )


def _name(key: str) -> str:
    return f"{SERVICE_NAME}:{key}"


@asynccontextmanager
async def open_cache(
    settings: RedisSettings, database: Database, add_check: Callable[[Check], None]
) -> AsyncIterator[Cache]:
    """Open a cache. It connects on first use, and without REDIS_URL it never holds a value.

    Args:
        settings: the URL.
        database: values are loaded from it.
        add_check: called with the health check of Redis.
    """
    if settings.redis_url is None:
        yield Cache(None)
        return
    pool = create_pool(settings.redis_url.get_secret_value(), POOL_SIZE)
    marker_seconds = ceil(database.statement_timeout_seconds) + MARKER_MARGIN_SECONDS
    async with Redis.from_pool(pool) as redis, aclosing(CircuitBreaker(redis)) as breaker:
        add_check(Check("redis", partial(check_writes, redis), critical=False))
        yield Cache(breaker, marker_seconds=marker_seconds)


async def check_writes(redis: Redis) -> None:
    """Write a key that expires. A full Redis, or a replica, would still answer a PING."""
    await redis.set(_name("health-check"), b"", ex=TTL_SECONDS)
