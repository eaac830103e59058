"""FIFO limiter with a timeout for database connections.

In SQLAlchemy's pool, new requests overtake waiting ones, which makes the slowest requests many
times slower than the others. Waiting in it also costs as much as a query. Behind this limiter the
pool never has to wait.
"""

import asyncio
import time
from collections.abc import Callable


class ConnectionLimiter:
    """Admit as many requests at once as the pool has connections.

    Attributes:
        size: the number of connections.
        in_use: how many of them are in use now.
        on_acquire: called with the seconds that each acquire() took, also when it timed out.
        on_release: called after each release().
    """

    def __init__(self, size: int, timeout_seconds: float) -> None:
        self.size = size
        self.in_use = 0
        self.on_acquire: list[Callable[[float], None]] = []
        self.on_release: list[Callable[[], None]] = []
        self._timeout_seconds = timeout_seconds
        self._free = asyncio.Semaphore(size)

    async def acquire(self) -> None:
        """Wait for a free connection, first in, first out.

        Raises:
            TimeoutError: no connection was free in time.
        """
        started = time.perf_counter()
        try:
            if self._free.locked():
                async with asyncio.timeout(self._timeout_seconds):
                    await self._free.acquire()
            else:
                await self._free.acquire()  # returns at once, so it needs no timeout
            self.in_use += 1
        except TimeoutError:
            limit = f"{self._timeout_seconds:g} s"
            raise TimeoutError(f"no connection was free within {limit}") from None
        finally:
            waited = time.perf_counter() - started
            for hook in self.on_acquire:
                hook(waited)

    def release(self) -> None:
        self.in_use -= 1
        self._free.release()
        for hook in self.on_release:
            hook()
