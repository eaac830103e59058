"""The queue of taskiq: a Redis stream whose messages are leased.

A worker keeps a message as long as it renews the lease. taskiq's own broker looks for messages of
dead workers only when a new message arrives, and takes long jobs from running workers, too.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from taskiq import AckableMessage
from taskiq_redis import RedisStreamBroker

from app.service_info import SERVICE_NAME

log = structlog.get_logger()

QUEUE = f"{SERVICE_NAME}:jobs"
LEASE_SECONDS = 20.0  # renewed four times as often
WAIT_SECONDS = 1.0  # for a message, then for Redis after it failed
MOST_WAITING = 100_000  # the oldest messages beyond that are dropped, before Redis is full

Entries = list[tuple[bytes, dict[bytes, bytes]]]  # ids and fields


class LeasedStreamBroker(RedisStreamBroker):
    """RedisStreamBroker with leases that are renewed. It continues after an outage of Redis."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        super().__init__(
            url,
            queue_name=QUEUE,
            consumer_group_name="workers",
            maxlen=MOST_WAITING,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
        )
        self._held: set[bytes] = set()

    def _redis(self) -> Redis:
        return Redis(connection_pool=self.connection_pool)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield messages one by one, first those whose lease has ended."""
        redis = self._redis()
        has_group = False
        while True:
            try:
                if not has_group:
                    with suppress(ResponseError):  # BUSYGROUP: it exists
                        # From the first message on: messages may be older than the group.
                        await redis.xgroup_create(
                            QUEUE, self.consumer_group_name, "0", mkstream=True
                        )
                    has_group = True
                found = await self._claim(redis) or await self._read(redis)
            except (RedisError, OSError, TimeoutError) as error:
                has_group = False  # Redis may have lost it
                log.warning("queue unavailable", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(WAIT_SECONDS)
                continue
            for message_id, fields in found:
                self._held.add(message_id)
                yield AckableMessage(data=fields[b"data"], ack=self._acknowledge(message_id))

    async def _claim(self, redis: Redis) -> Entries:
        # XAUTOCLAIM stops after ten messages whose leases are valid.
        idle_milliseconds = int(LEASE_SECONDS * 1000)
        left = await redis.xpending_range(
            QUEUE, self.consumer_group_name, "-", "+", count=1, idle=idle_milliseconds
        )
        if not left:
            return []
        found = await redis.xclaim(
            QUEUE,
            self.consumer_group_name,
            self.consumer_name,
            min_idle_time=idle_milliseconds,  # another worker may have claimed it since
            message_ids=[left[0]["message_id"]],
        )
        return cast(Entries, found)

    async def _read(self, redis: Redis) -> Entries:
        streams = await redis.xreadgroup(
            self.consumer_group_name,
            self.consumer_name,
            {QUEUE: ">"},
            block=int(WAIT_SECONDS * 1000),
            count=1,
        )
        found: Entries = []
        for _stream, entries in cast(Any, streams) or []:
            found += entries
        return found

    def _acknowledge(self, message_id: bytes) -> Callable[[], Awaitable[None]]:
        async def acknowledge() -> None:
            self._held.discard(message_id)
            redis = self._redis()
            await redis.xack(QUEUE, self.consumer_group_name, message_id)
            await redis.xdel(QUEUE, message_id)

        return acknowledge

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
        redis = self._redis()
        await redis.ping()
        if self._held:
            await redis.xclaim(
                QUEUE,
                self.consumer_group_name,
                self.consumer_name,
                min_idle_time=0,
                message_ids=list(self._held),
                idle=milliseconds,
                justid=True,
            )
