"""The breaker limits the wait of a request for Redis, and lets a late command finish."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.cache.circuit_breaker import CircuitBreaker, RedisUnavailable


class Commands:
    """Commands that wait until the test sets `can_finish`.

    Attributes:
        begun: the number of commands that have begun.
        finished: the number of commands that have finished.
        can_finish: set by the test.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.finished = 0
        self.can_finish = asyncio.Event()

    async def run(self) -> str:
        self.begun += 1
        await self.can_finish.wait()
        self.finished += 1
        return "response"


async def respond() -> str:
    return "response"


async def fail() -> str:
    raise ResponseError("refused")


@pytest.fixture(autouse=True)
def short_wait_and_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cache.circuit_breaker.WAIT_SECONDS", 0.05)
    monkeypatch.setattr("app.cache.circuit_breaker.PAUSE_SECONDS", 60)


@pytest.fixture
async def breaker() -> AsyncIterator[CircuitBreaker]:
    async with Redis() as redis:  # never used, so it never connects
        breaker = CircuitBreaker(redis)
        yield breaker
        await breaker.aclose()


@pytest.fixture
def commands() -> Commands:
    return Commands()


async def test_late_command_continues_after_its_request(
    breaker: CircuitBreaker, commands: Commands
) -> None:
    with pytest.raises(RedisUnavailable, match=r"no answer within 0\.05 s"):
        await breaker.call(commands.run)
    commands.can_finish.set()
    async with asyncio.timeout(20):
        while not commands.finished:
            await asyncio.sleep(0)


async def test_command_after_a_failure_is_refused_during_the_pause(
    breaker: CircuitBreaker, commands: Commands
) -> None:
    with pytest.raises(RedisUnavailable, match="ResponseError: refused"):
        await breaker.call(fail)
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="ResponseError: refused"):
            await breaker.call(commands.run)
    assert commands.begun == 0
    assert await breaker.call(respond, ignore_open_circuit=True) == "response"
    assert await breaker.call(respond) == "response"


async def test_late_command_opens_the_breaker_unless_redis_answered_another(
    breaker: CircuitBreaker, commands: Commands
) -> None:
    """A command that opens a connection is slow; it must not block the open connections."""
    late = asyncio.create_task(breaker.call(commands.run))
    while not commands.begun:
        await asyncio.sleep(0)
    assert await breaker.call(respond) == "response"
    with pytest.raises(RedisUnavailable):
        await late
    assert await breaker.call(respond) == "response"
    with pytest.raises(RedisUnavailable):
        await breaker.call(commands.run)
    with pytest.raises(RedisUnavailable):
        await breaker.call(respond)


async def test_late_command_is_cancelled_after_its_own_limit(
    breaker: CircuitBreaker, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.circuit_breaker.LATE_SECONDS", 0.1)
    with pytest.raises(RedisUnavailable):
        await breaker.call(commands.run)
    await asyncio.sleep(0.2)
    commands.can_finish.set()
    await asyncio.sleep(0.01)
    assert commands.finished == 0


async def test_close_cancels_late_commands(breaker: CircuitBreaker, commands: Commands) -> None:
    with pytest.raises(RedisUnavailable):
        await breaker.call(commands.run)
    await breaker.aclose()
    commands.can_finish.set()
    await asyncio.sleep(0.01)
    assert commands.finished == 0


async def test_command_continues_after_its_request_is_cancelled(
    breaker: CircuitBreaker, commands: Commands
) -> None:
    request = asyncio.create_task(breaker.call(commands.run))
    while not commands.begun:
        await asyncio.sleep(0)
    request.cancel()
    commands.can_finish.set()
    async with asyncio.timeout(20):
        while not commands.finished:
            await asyncio.sleep(0)
    assert request.cancelled()
