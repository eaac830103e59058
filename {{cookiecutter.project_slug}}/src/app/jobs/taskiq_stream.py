"""The queue of taskiq: a Redis stream, whose messages are leased.

A message belongs to a worker for as long as the worker renews its lease. taskiq's own broker looks
for what a dead worker held only when something new comes in, and takes it from the living, too,
when a job takes long.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from taskiq import AckableMessage
from taskiq_redis import RedisStreamBroker

from app.service_info import SERVICE_NAME

log = structlog.get_logger()

QUEUE = f"{SERVICE_NAME}:jobs"
LEASE_SECONDS = 20.0  # renewed four times as often
WAIT_SECONDS = 1.0  # for a message, then for Redis after it failed
MOST_WAITING = 100_000  # beyond that the oldest is dropped, before Redis is full

Entries = list[tuple[bytes, dict[bytes, bytes]]]  # ids and fields


class LeasedStreamBroker(RedisStreamBroker):
    """RedisStreamBroker, with leases that are renewed, and which outlives an outage of Redis."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        super().__init__(
            url,
            queue_name=QUEUE,
            consumer_group_name="workers",
            consumer_id="0",  # from the first message on: some may be older than the group
            maxlen=MOST_WAITING,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
        )
        self._held: set[bytes] = set()

    def _redis(self) -> Redis:
        return Redis(connection_pool=self.connection_pool)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Messages one by one, first those that another worker has let go of."""
        redis = self._redis()
        has_group = False
        while True:
            try:
                if not has_group:
                    await self._declare_consumer_group()
                    has_group = True
                found = await self._claim(redis) or await self._read(redis)
            except (RedisError, OSError, TimeoutError) as error:
                has_group = False  # it may come back empty
                log.warning("queue unavailable", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(WAIT_SECONDS)
                continue
            for message_id, fields in found:
                self._held.add(message_id)
                yield AckableMessage(data=fields[b"data"], ack=self._acknowledge(message_id))

    async def _claim(self, redis: Redis) -> Entries:
        # Not XAUTOCLAIM: it gives up after ten messages that others still hold.
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
            min_idle_time=idle_milliseconds,  # or else another worker was quicker
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
        """Keep what is being worked on; raises if Redis does not answer."""
        await self._set_idle(0)

    async def release(self) -> None:
        """Let another worker have at once what is not done."""
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
