import asyncio

import pytest

from app.db.limiter import Turns


async def test_who_waits_is_served_before_who_comes_later() -> None:
    turns = Turns(1, wait_seconds=5)
    served: list[str] = []

    async def work(name: str) -> None:
        await turns.take()
        served.append(name)
        turns.give_back()

    await turns.take()
    first = asyncio.create_task(work("first"))
    await asyncio.sleep(0)
    turns.give_back()  # free for a moment, but not for those who come now
    await work("later")
    await first
    assert served == ["first", "later"]


async def test_who_waits_too_long_is_told_so_and_leaves_no_trace() -> None:
    turns = Turns(1, wait_seconds=0.05)
    waits: list[float] = []
    turns.taken.append(waits.append)
    await turns.take()
    with pytest.raises(TimeoutError, match=r"no connection was free within 0\.05 s"):
        await turns.take()
    assert turns.in_use == 1
    turns.give_back()
    await turns.take()
    assert turns.in_use == 1
    assert waits[1] >= 0.05 > waits[2]


async def test_a_wait_that_is_cancelled_takes_no_turn() -> None:
    turns = Turns(1, wait_seconds=5)
    await turns.take()
    waiting = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    turns.give_back()
    assert turns.in_use == 0
    await turns.take()


async def test_those_who_watch_see_every_end() -> None:
    turns = Turns(2, wait_seconds=5)
    in_use: list[int] = []
    turns.given_back.append(lambda: in_use.append(turns.in_use))
    await turns.take()
    await turns.take()
    turns.give_back()
    turns.give_back()
    assert in_use == [1, 0]
