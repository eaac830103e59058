"""Who may have a database connection next: first come, first served, and for so long.

SQLAlchemy's pool lets newcomers overtake those that wait, which makes the slowest requests many
times slower than the others, and waiting in it costs as much as a query. It never has to wait
behind this.
"""

import asyncio
import time
from collections.abc import Callable


class ConnectionLimiter:
    """As many at once as there are connections.

    Attributes:
        size: how many there are.
        in_use: how many of them are used now.
        on_acquire: called with the seconds that each turn took to come, even if it did not come.
        on_release: called after each turn.
    """

    def __init__(self, size: int, wait_seconds: float) -> None:
        self.size = size
        self.in_use = 0
        self.on_acquire: list[Callable[[float], None]] = []
        self.on_release: list[Callable[[], None]] = []
        self._wait_seconds = wait_seconds
        self._free = asyncio.Semaphore(size)

    async def acquire(self) -> None:
        """Wait for a turn.

        Raises:
            TimeoutError: none came in time.
        """
        started = time.perf_counter()
        try:
            if self._free.locked():
                async with asyncio.timeout(self._wait_seconds):
                    await self._free.acquire()
            else:
                await self._free.acquire()  # at once: nothing to time
            self.in_use += 1
        except TimeoutError:
            raise TimeoutError(f"no connection was free within {self._wait_seconds:g} s") from None
        finally:
            waited = time.perf_counter() - started
            for observe in self.on_acquire:
                observe(waited)

    def release(self) -> None:
        self.in_use -= 1
        self._free.release()
        for observe in self.on_release:
            observe()
