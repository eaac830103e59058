"""The breaker bounds the wait of a request for Redis, and lets a late command end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.cache.circuit_breaker import CircuitBreaker, RedisUnavailable


class Commands:
    """Commands that a test lets end.

    Attributes:
        ended: those that went on to their end.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.go_on = asyncio.Event()

    async def run(self) -> str:
        self.begun += 1
        await self.go_on.wait()
        self.ended += 1
        return "answer"


async def answer() -> str:
    return "answer"


async def fail() -> str:
    raise ResponseError("refused")


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cache.circuit_breaker.WAIT_SECONDS", 0.05)


@pytest.fixture
async def breaker() -> AsyncIterator[CircuitBreaker]:
    async with Redis() as redis:  # it connects on first use, and is not used
        breaker = CircuitBreaker(redis)
        yield breaker
        await breaker.close()


@pytest.fixture
def commands() -> Commands:
    return Commands()


async def test_a_late_command_goes_on_after_its_request(
    breaker: CircuitBreaker, commands: Commands
) -> None:
    with pytest.raises(RedisUnavailable, match=r"no answer within 0\.05 s"):
        await breaker.call(commands.run)
    commands.go_on.set()
    async with asyncio.timeout(20):
        while not commands.ended:
            await asyncio.sleep(0)


async def test_after_a_failure_no_command_begins_for_a_while(
    breaker: CircuitBreaker, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.circuit_breaker.PAUSE_SECONDS", 60)
    with pytest.raises(RedisUnavailable, match="ResponseError: refused"):
        await breaker.call(fail)
    for _ in range(3):
        with pytest.raises(RedisUnavailable, match="ResponseError: refused"):
            await breaker.call(commands.run)
    assert commands.begun == 0
    assert await breaker.call(answer, even_open=True) == "answer"


async def test_a_late_command_opens_the_breaker_only_if_redis_has_answered_no_other(
    breaker: CircuitBreaker, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that opens a connection would keep those from Redis that have one."""
    monkeypatch.setattr("app.cache.circuit_breaker.PAUSE_SECONDS", 60)
    late = asyncio.create_task(breaker.call(commands.run))
    while not commands.begun:
        await asyncio.sleep(0)
    assert await breaker.call(answer) == "answer"
    with pytest.raises(RedisUnavailable):
        await late
    assert await breaker.call(answer) == "answer"
    with pytest.raises(RedisUnavailable):
        await breaker.call(commands.run)
    with pytest.raises(RedisUnavailable):
        await breaker.call(answer)


async def test_a_late_command_is_cancelled_after_its_own_limit(
    breaker: CircuitBreaker, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cache.circuit_breaker.LATE_SECONDS", 0.1)
    with pytest.raises(RedisUnavailable):
        await breaker.call(commands.run)
    await asyncio.sleep(0.2)
    commands.go_on.set()
    await asyncio.sleep(0.01)
    assert commands.ended == 0


async def test_the_end_of_the_service_cancels_late_commands(
    breaker: CircuitBreaker, commands: Commands
) -> None:
    with pytest.raises(RedisUnavailable):
        await breaker.call(commands.run)
    await breaker.close()
    commands.go_on.set()
    await asyncio.sleep(0.01)
    assert commands.ended == 0


async def test_a_client_that_disconnects_does_not_end_a_command(
    breaker: CircuitBreaker, commands: Commands
) -> None:
    request = asyncio.create_task(breaker.call(commands.run))
    while not commands.begun:
        await asyncio.sleep(0)
    request.cancel()
    commands.go_on.set()
    async with asyncio.timeout(20):
        while not commands.ended:
            await asyncio.sleep(0)
    assert request.cancelled()
