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
        self._waiting: list[tuple[uuid.UUID, asyncio.Future[Row[Any] | None]]] = []
        self._running: asyncio.Task[None] | None = None

    async def add(self, job_id: uuid.UUID) -> Row[Any] | None:
        """Execute the statement for this job, and return its row if the statement found it.

        A canceled caller does not cancel the statement, which is also for others.

        Raises:
            Exception: the error of the statement. Every job of the batch gets it.
        """
        found: asyncio.Future[Row[Any] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((job_id, found))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await found

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            (rows,), _ = await asyncio.wait(
                [asyncio.ensure_future(self._execute([job_id for job_id, _ in batch]))]
            )
            error = rows.exception()
            for job_id, found in batch:
                if found.done():
                    continue  # the job was canceled
                if error is None:
                    found.set_result(rows.result().get(job_id))
                else:
                    found.set_exception(error)
        self._running = None
