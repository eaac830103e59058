"""Leases: what a worker renews is its own, what it lets go of is anybody's."""

from collections.abc import AsyncIterator

import pytest
from taskiq import AckableMessage, BrokerMessage

from app.jobs.taskiq_stream import LeasedStreamBroker
from own_valkey import own_valkey

MESSAGE = BrokerMessage(task_id="1", task_name="x", message=b"its text", labels={})


@pytest.fixture
async def brokers() -> AsyncIterator[list[LeasedStreamBroker]]:
    """Two workers at one queue, with one message in it."""
    with own_valkey() as valkey:
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


async def is_free(broker: LeasedStreamBroker) -> bool:
    """Whether another worker gets it."""
    return bool(await broker._claim(broker._redis()))  # noqa: SLF001 - what it is about


async def test_a_message_is_free_when_it_is_released_and_not_when_it_is_renewed(
    brokers: list[LeasedStreamBroker],
) -> None:
    one, other = brokers
    await receive(one)
    assert not await is_free(other)
    await one.release()
    await one.renew()
    assert not await is_free(other)
    await one.release()
    assert await is_free(other)


async def test_an_acknowledged_message_leaves_nothing_behind(
    brokers: list[LeasedStreamBroker],
) -> None:
    one, other = brokers
    message = await receive(one)
    await message.ack()  # type: ignore[misc]  # taskiq allows it to be no coroutine
    await one.release()
    assert not await is_free(other)
    assert await one._redis().xlen(one.queue_name) == 0  # noqa: SLF001 - what it is about


async def test_what_a_dead_worker_held_is_found_behind_any_number_that_others_renew(
    brokers: list[LeasedStreamBroker],
) -> None:
    one, dead = brokers
    for _ in range(20):
        await one.kick(MESSAGE)
    for _ in range(20):
        await receive(one)
    await receive(dead)
    await dead.release()
    await one.renew()
    assert await is_free(one)
    assert not await is_free(one)
