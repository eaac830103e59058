"""Limit the time that requests wait for Redis, and send no commands for a moment after a failure.

A request that waits too long continues without Redis. Its command continues in the background with
a longer limit, so that the connection that it opens is kept. Over a slow link the first requests
work without Redis, and later ones use that connection.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from app.circuit import Circuit

log = structlog.get_logger()

R = TypeVar("R")

# For the reply to one command, and for the whole wait of a request. A command is one round trip.
WAIT_SECONDS = 0.5
CONNECT_SECONDS = 3.0  # for TCP and TLS, in the background; WAIT_SECONDS for each further reply
LATE_SECONDS = 4.0  # for a command in the background, with waiting and connecting
POOL_WAIT_SECONDS = 1.0  # for a free connection, when many requests use Redis
PAUSE_SECONDS = 1.0  # between two requests that try Redis after a failure


class RedisUnavailable(Exception):
    """Redis failed or did not answer in time, for this request or for one before it."""


class CircuitBreaker:
    """Run the Redis commands of a process.

    A request with several commands waits only once for a Redis that does not answer.

    Attributes:
        redis: the client.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._circuit = Circuit(max_failures=1, pause_seconds=PAUSE_SECONDS)
        self._reason = ""
        self._answered_at = 0.0
        self._running: set[asyncio.Task[object]] = set()

    async def call(
        self, command: Callable[[], Awaitable[R]], *, ignore_open_circuit: bool = False
    ) -> R:
        """Run commands, and wait at most `WAIT_SECONDS` for them.

        Args:
            command: runs them. It may continue after the wait.
            ignore_open_circuit: try even if Redis failed a moment ago.

        Raises:
            RedisUnavailable: with the reason.
        """
        started = time.monotonic()
        if not ignore_open_circuit and not self._circuit.allows_call():
            raise RedisUnavailable(self._reason)
        task = asyncio.create_task(_run_with_timeout(command))
        self._running.add(task)
        task.add_done_callback(self._retrieve_error)
        await asyncio.wait({task}, timeout=WAIT_SECONDS)
        if not task.done():
            reason = f"no answer within {WAIT_SECONDS:g} s"
            if self._answered_at < started:  # else this one still connects
                self._open(reason)
            raise RedisUnavailable(reason)
        try:
            result = task.result()
        except (RedisError, OSError, TimeoutError) as error:
            self._open(f"{type(error).__name__}: {error}".rstrip(": "))
            raise RedisUnavailable(self._reason) from error
        self._answered_at = time.monotonic()
        self._circuit.record_success()
        return result

    async def aclose(self) -> None:
        """Cancel late commands, before their connections are closed."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=WAIT_SECONDS)

    def _open(self, reason: str) -> None:
        self._circuit.record_failure()
        self._reason = reason
        log.warning("redis unavailable", reason=reason)

    def _retrieve_error(self, task: asyncio.Task[object]) -> None:
        """Keep asyncio from logging the error of a late command: call() has logged the delay."""
        self._running.discard(task)
        if not task.cancelled():
            task.exception()


async def _run_with_timeout(command: Callable[[], Awaitable[R]]) -> R:
    async with asyncio.timeout(LATE_SECONDS):
        return await command()


def create_pool(url: str, size: int) -> BlockingConnectionPool:
    """Return a pool that opens connections on first use."""
    return BlockingConnectionPool.from_url(
        url,
        socket_timeout=WAIT_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        max_connections=size,
        timeout=POOL_WAIT_SECONDS,  # other pools fail at once
    )
