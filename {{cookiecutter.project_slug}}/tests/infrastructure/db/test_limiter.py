import asyncio

import pytest

from app.db.limiter import ConnectionLimiter


async def test_waiting_requests_are_served_first_in_first_out() -> None:
    limiter = ConnectionLimiter(1, timeout_seconds=5)
    served: list[str] = []

    async def work(name: str) -> None:
        await limiter.acquire()
        served.append(name)
        limiter.release()

    await limiter.acquire()
    first = asyncio.create_task(work("first"))
    await asyncio.sleep(0)
    limiter.release()  # the free connection is reserved for the first waiter
    await work("later")
    await first
    assert served == ["first", "later"]


async def test_wait_over_the_limit_raises_and_frees_its_place() -> None:
    limiter = ConnectionLimiter(1, timeout_seconds=0.05)
    waits: list[float] = []
    limiter.on_acquire.append(waits.append)
    await limiter.acquire()
    with pytest.raises(TimeoutError, match=r"no connection was free within 0\.05 s"):
        await limiter.acquire()
    assert limiter.in_use == 1
    limiter.release()
    await limiter.acquire()
    assert limiter.in_use == 1
    assert waits[1] >= 0.05
    assert len(waits) == 3


async def test_cancelled_wait_acquires_no_connection() -> None:
    limiter = ConnectionLimiter(1, timeout_seconds=5)
    await limiter.acquire()
    waiting = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    limiter.release()
    assert limiter.in_use == 0
    await limiter.acquire()


async def test_release_callbacks_see_the_connections_in_use() -> None:
    limiter = ConnectionLimiter(2, timeout_seconds=5)
    in_use: list[int] = []
    limiter.on_release.append(lambda: in_use.append(limiter.in_use))
    await limiter.acquire()
    await limiter.acquire()
    limiter.release()
    limiter.release()
    assert in_use == [1, 0]
