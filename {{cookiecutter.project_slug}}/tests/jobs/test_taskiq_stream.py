"""Leases of messages: a worker keeps those that it renews, and frees those that it releases."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from taskiq import AckableMessage, BrokerMessage

from app.jobs.taskiq_stream import LeasedStreamBroker
from valkey_server import start_valkey

MESSAGE = BrokerMessage(task_id="1", task_name="x", message=b"its text", labels={})


@pytest.fixture
async def brokers() -> AsyncIterator[list[LeasedStreamBroker]]:
    """Yield two workers of a queue with one message."""
    with start_valkey() as valkey:
        brokers = [LeasedStreamBroker(valkey.url, timeout_seconds=5) for _ in range(2)]
        await brokers[0].kick(MESSAGE)
        yield brokers
        for broker in brokers:
            await broker.connection_pool.disconnect()


async def receive(broker: LeasedStreamBroker) -> AckableMessage:
    messages = broker.listen()
    message = await anext(messages)
    await messages.aclose()
    assert message.data == b"its text"
    return message


async def can_claim(broker: LeasedStreamBroker) -> bool:
    """Return whether this worker can claim a message of another one."""
    return bool(await broker.claim())


async def test_message_is_claimable_after_release_and_not_after_renewal(
    brokers: list[LeasedStreamBroker],
) -> None:
    first, second = brokers
    await receive(first)
    assert not await can_claim(second)
    await first.release()
    await first.renew()
    assert not await can_claim(second)
    await first.release()
    assert await can_claim(second)


async def test_acknowledged_message_is_removed_from_the_stream(
    brokers: list[LeasedStreamBroker],
) -> None:
    first, second = brokers
    message = await receive(first)
    await message.ack()  # type: ignore[misc]  # taskiq also allows a plain function
    await first.release()
    assert not await can_claim(second)
    async with Redis(connection_pool=first.connection_pool) as redis:
        assert await redis.xlen(first.queue_name) == 0


async def test_message_of_a_dead_worker_is_claimed_behind_renewed_ones(
    brokers: list[LeasedStreamBroker],
) -> None:
    living, dead = brokers
    for _ in range(20):
        await living.kick(MESSAGE)
    for _ in range(20):
        await receive(living)
    await receive(dead)
    await dead.release()
    await living.renew()
    assert await can_claim(living)
    assert not await can_claim(living)
