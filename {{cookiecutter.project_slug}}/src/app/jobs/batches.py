"""One statement for the attempts that wait at the same time."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import Row

Rows = Mapping[uuid.UUID, Row[Any]]


class Batches:
    """Executes a statement for several jobs at once.

    While a statement runs, further jobs gather for the next one, so that a job waits for no timer.

    Args:
        execute: executes the statement for these ids, and returns the rows by id.
    """

    def __init__(self, execute: Callable[[list[uuid.UUID]], Awaitable[Rows]]) -> None:
        self._execute = execute
        self._ids: list[uuid.UUID] = []
        self._next: asyncio.Task[Rows] | None = None
        self._last: asyncio.Task[Rows] | None = None

    async def add(self, job_id: uuid.UUID) -> Row[Any] | None:
        """Execute the statement for this job, and return its row if the statement found it.

        A canceled caller does not cancel the statement, which is also for others.

        Raises:
            Exception: the error of the statement. Every job of the batch gets it.
        """
        if self._next is None:
            self._ids = []
            self._last = self._next = asyncio.create_task(self._run(self._ids, self._last))
        self._ids.append(job_id)
        rows = await asyncio.shield(self._next)
        return rows.get(job_id)

    async def _run(self, ids: list[uuid.UUID], last: asyncio.Task[Rows] | None) -> Rows:
        if last is not None:
            await asyncio.wait({last})
        self._next = None
        return await self._execute(ids)
