import asyncio
import uuid
from typing import Any

import pytest
from sqlalchemy import Row

from app.jobs.batches import Batches

IDS = [uuid.uuid4() for _ in range(4)]


class Statement:
    """A statement that ends when a test lets it, and that finds no row."""

    def __init__(self) -> None:
        self.executed: list[list[uuid.UUID]] = []
        self.may_end = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def __call__(self, ids: list[uuid.UUID]) -> dict[uuid.UUID, Row[Any]]:
        self.executed.append(ids)
        await self.may_end.acquire()
        if self.error:
            raise self.error
        return {}


async def until_executed(statement: Statement, number: int) -> None:
    async with asyncio.timeout(10):
        while len(statement.executed) < number:
            await asyncio.sleep(0)


async def test_jobs_that_arrive_during_a_statement_share_the_next_one() -> None:
    statement = Statement()
    batches = Batches(statement)
    first = asyncio.create_task(batches.add(IDS[0]))
    await until_executed(statement, 1)
    others = [asyncio.create_task(batches.add(job_id)) for job_id in IDS[1:]]
    await asyncio.sleep(0)
    assert statement.executed == [IDS[:1]]
    for _ in range(2):
        statement.may_end.release()
    assert await asyncio.gather(first, *others) == [None] * 4
    assert statement.executed == [IDS[:1], IDS[1:]]


async def test_canceled_job_does_not_cancel_the_statement_of_the_others() -> None:
    statement = Statement()
    batches = Batches(statement)
    canceled, other = (asyncio.create_task(batches.add(job_id)) for job_id in IDS[:2])
    await until_executed(statement, 1)
    canceled.cancel()
    statement.may_end.release()
    assert await other is None
    assert canceled.cancelled()


async def test_error_of_a_statement_reaches_its_jobs_and_not_the_next_ones() -> None:
    statement = Statement()
    statement.error = OSError("no connection")
    batches = Batches(statement)
    failing = [asyncio.create_task(batches.add(job_id)) for job_id in IDS[:2]]
    await until_executed(statement, 1)
    after = asyncio.create_task(batches.add(IDS[2]))
    statement.may_end.release()
    for task in failing:
        with pytest.raises(OSError, match="no connection"):
            await task
    statement.error = None
    statement.may_end.release()
    assert await after is None
