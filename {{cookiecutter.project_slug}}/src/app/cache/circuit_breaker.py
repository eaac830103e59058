"""Bound the wait of requests for Redis, and leave a Redis that does not answer alone for a moment.

A request that waits too long goes on without Redis. Its command goes on in the background, within
a longer limit, so that the connection that it opens is kept. Over a slow link the first requests
do without Redis, and later ones find the connection.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

log = structlog.get_logger()

R = TypeVar("R")

# For the answer to one command, and for the whole wait of a request. A command is one round trip.
WAIT_SECONDS = 0.5
CONNECT_SECONDS = 3.0  # for TCP and TLS, in the background; WAIT_SECONDS for each further answer
LATE_SECONDS = 4.0  # for a command in the background, with waiting and connecting
POOL_WAIT_SECONDS = 1.0  # for a free connection: a crowd is no outage
PAUSE_SECONDS = 1.0  # after a failure Redis is left alone for this long


class RedisUnavailable(Exception):
    """Redis failed, did not answer in time, or did so less than a second ago."""


class CircuitBreaker:
    """Runs Redis commands; a process has one.

    So a request that needs Redis twice waits only once for a Redis that does not answer.

    Attributes:
        redis: the client.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._open_until = 0.0
        self._reason = ""
        self._answered_at = 0.0
        self._running: set[asyncio.Task[object]] = set()

    async def call(self, command: Callable[[], Awaitable[R]], *, even_open: bool = False) -> R:
        """Run commands, and wait for them for `WAIT_SECONDS` at most.

        Args:
            command: runs them; it may run on after the wait.
            even_open: try even if Redis failed a moment ago.

        Raises:
            RedisUnavailable: with the reason.
        """
        started = time.monotonic()
        if started < self._open_until and not even_open:
            raise RedisUnavailable(self._reason)
        task = asyncio.create_task(_run_to_the_end(command))
        self._running.add(task)
        task.add_done_callback(self._forget)
        await asyncio.wait({task}, timeout=WAIT_SECONDS)
        if not task.done():
            reason = f"no answer within {WAIT_SECONDS:g} s"
            if self._answered_at < started:  # else Redis answers, and this one still connects
                self._open(reason)
            raise RedisUnavailable(reason)
        try:
            result = task.result()
        except (RedisError, OSError, TimeoutError) as error:
            self._open(f"{type(error).__name__}: {error}".rstrip(": "))
            raise RedisUnavailable(self._reason) from error
        self._answered_at = time.monotonic()
        return result

    async def close(self) -> None:
        """Cancel late commands, before their connections are closed."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=WAIT_SECONDS)

    def _open(self, reason: str) -> None:
        self._open_until = time.monotonic() + PAUSE_SECONDS
        self._reason = reason
        log.warning("redis unavailable", reason=reason)

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # reported already, as an answer that was late


async def _run_to_the_end(command: Callable[[], Awaitable[R]]) -> R:
    async with asyncio.timeout(LATE_SECONDS):
        return await command()


def create_pool(url: str, size: int) -> BlockingConnectionPool:
    """Make a pool that opens connections on first use."""
    return BlockingConnectionPool.from_url(
        url,
        socket_timeout=WAIT_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        max_connections=size,
        timeout=POOL_WAIT_SECONDS,  # the plain pool would fail at once
    )
