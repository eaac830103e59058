"""The queue of taskiq: a Redis stream whose messages are leased.

A worker keeps a message as long as it renews the lease. taskiq's own broker looks for messages of
dead workers only when a new message arrives, and takes long jobs from running workers, too.
"""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from taskiq import AckableMessage
from taskiq_redis import RedisStreamBroker

from app.service_info import SERVICE_NAME

log = structlog.get_logger()

QUEUE = f"{SERVICE_NAME}:jobs"
GROUP = "workers"
LEASE_SECONDS = 20.0  # renewed four times as often
WAIT_SECONDS = 1.0  # for a message, then for Redis after it failed
MAX_WAITING = 100_000  # the oldest messages beyond that are dropped, before Redis is full

Entries = list[tuple[bytes, dict[bytes, bytes]]]  # ids and fields


class LeasedStreamBroker(RedisStreamBroker):
    """RedisStreamBroker with leases that are renewed. It continues after an outage of Redis.

    Attributes:
        held: the ids of the messages that this worker has leased and not acknowledged.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        super().__init__(
            url,
            queue_name=QUEUE,
            consumer_group_name=GROUP,
            consumer_id="0",  # from the first message on: messages may be older than the group
            maxlen=MAX_WAITING,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
        )
        self._redis = Redis(connection_pool=self.connection_pool)
        self.held: set[bytes] = set()

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages one by one, first those whose lease has ended."""
        has_group = False
        while True:
            try:
                if not has_group:
                    await self.startup()  # creates the group
                    has_group = True
                found = await self.claim() or await self._read()
            except (RedisError, OSError, TimeoutError) as error:
                has_group = False  # Redis may have lost it
                log.warning("queue unavailable", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(WAIT_SECONDS)
                continue
            for message_id, fields in found:
                self.held.add(message_id)
                yield AckableMessage(data=fields[b"data"], ack=partial(self._ack, message_id))

    async def claim(self) -> Entries:
        """Take a message whose lease has ended. XAUTOCLAIM stops after ten valid leases."""
        idle = int(LEASE_SECONDS * 1000)
        expired = await self._redis.xpending_range(QUEUE, GROUP, "-", "+", count=1, idle=idle)
        if not expired:
            return []
        # Another worker may have claimed it since, so the minimum applies again.
        return await self._xclaim([expired[0]["message_id"]], min_idle_time=idle)

    async def _xclaim(self, message_ids: list[Any], **options: Any) -> Entries:
        found = await self._redis.xclaim(
            QUEUE, GROUP, self.consumer_name, message_ids=message_ids, **options
        )
        return cast(Entries, found)

    async def _read(self) -> Entries:
        wait = int(WAIT_SECONDS * 1000)
        streams = await self._redis.xreadgroup(
            GROUP, self.consumer_name, {QUEUE: ">"}, count=1, block=wait
        )
        return cast(list[tuple[bytes, Entries]], streams)[0][1] if streams else []

    async def _ack(self, message_id: bytes) -> None:
        self.held.discard(message_id)
        await self._redis.xack(QUEUE, GROUP, message_id)
        await self._redis.xdel(QUEUE, message_id)

    async def renew(self) -> None:
        """Renew the leases of the messages that this worker holds.

        Raises:
            RedisError: Redis is unavailable. OSError and TimeoutError mean the same.
        """
        await self._set_idle(0)

    async def release(self) -> None:
        """End the leases of the messages that this worker holds."""
        await self._set_idle(int(LEASE_SECONDS * 1000))

    async def _set_idle(self, milliseconds: int) -> None:
        await self._redis.ping()
        if self.held:
            held = list(self.held)
            await self._xclaim(held, min_idle_time=0, idle=milliseconds, justid=True)
