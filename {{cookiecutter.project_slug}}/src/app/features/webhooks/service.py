"""The rules: a delivery is stored once, and processed until that succeeds or is given up."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import structlog
from sqlalchemy import bindparam, case, func, null, select, update
from sqlalchemy.dialects.postgresql import insert

from app.db.database import Database, Transaction
from app.errors import Unavailable
from app.features.webhooks.kinds import NewEvent
from app.features.webhooks.models import DeliveryModel as Row
from app.features.webhooks.process import Event, process

log = structlog.get_logger()

PROCESS_SECONDS = 30  # longest attempt
MAX_ATTEMPTS = 10
FIRST_PAUSE_SECONDS = 30  # after a failure; each further pause is twice as long
START_SECONDS = 2  # from the start of a process to its first sweep
SWEEP_SECONDS = 60
STOP_SECONDS = 3  # for the attempt that runs when the process is to end
LONGEST_ERROR = 500

STORE = insert(Row).on_conflict_do_nothing(index_elements=[Row.source, Row.id]).returning(Row.id)
TAKE = (
    select(Row.source, Row.id, Row.received_at, Row.body, Row.type)
    .where(Row.due_at <= func.now())
    .order_by(Row.due_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_THIS = (Row.source == bindparam("of_source"), Row.id == bindparam("of_id"))
_FINISH = (
    update(Row)
    .where(*_THIS)
    .values(processed_at=func.now(), due_at=null(), error=null(), attempts=Row.attempts + 1)
    .returning(Row.attempts)
)
_PAUSE_SECONDS = FIRST_PAUSE_SECONDS * func.power(2, Row.attempts)
_POSTPONE = (
    update(Row)
    .where(*_THIS, Row.processed_at.is_(None))
    .values(
        due_at=case(
            (
                Row.attempts + 1 < MAX_ATTEMPTS,
                func.now() + func.make_interval(0, 0, 0, 0, 0, 0, _PAUSE_SECONDS),
            ),
        ),
        error=bindparam("reason"),
        attempts=Row.attempts + 1,
    )
    .returning(Row.attempts, Row.due_at)
)


async def store(transaction: Transaction, source: str, events: Iterable[NewEvent]) -> list[str]:
    """Store the events of a delivery once.

    Of several transactions that store the same event at once, the first to commit has it. The
    events are sorted, so that batches that have several in common do not wait for each other.

    Returns:
        The ids of those that are new.
    """
    values = [
        {"source": source, "id": event.id, "body": event.body, "type": event.type}
        for event in sorted(events, key=lambda event: event.id)
    ]
    result = await transaction.connection.execute(STORE, values)
    return list(result.scalars())


async def process_next(database: Database) -> bool:
    """Process the delivery that has been due for longest, unless another process has it.

    Returns:
        Whether there was one.

    Raises:
        Unavailable: the database cannot be reached.
    """
    event = None
    try:
        async with database.transaction() as transaction:
            rows = await transaction.fetch(TAKE)  # and lock it
            if not rows:
                return False
            event = Event(**rows[0])
            async with asyncio.timeout(PROCESS_SECONDS):
                await process(event, transaction)
            await transaction.fetch(_FINISH, {"of_source": event.source, "of_id": event.id})
    except Exception as error:
        if event is None:
            raise
        log.exception("webhook not processed", source=event.source, id=event.id)
        await _postpone(database, event, error)
    return True


async def _postpone(database: Database, event: Event, error: Exception) -> None:
    """In a transaction of its own: that of the attempt is gone, perhaps with its connection."""
    reason = f"{type(error).__name__}: {error}"[:LONGEST_ERROR].replace("\0", "")
    values = {"of_source": event.source, "of_id": event.id, "reason": reason}
    async with database.transaction() as transaction:
        rows = await transaction.fetch(_POSTPONE, values)
    if rows and rows[0]["due_at"] is None:
        attempts = rows[0]["attempts"]
        log.error("webhook given up", source=event.source, id=event.id, attempts=attempts)


class Processor(Protocol):
    """Who processes what was stored."""

    def process_after(self, transaction: Transaction, key: str) -> None:
        """Process what is due as soon as a transaction is committed, which stored this one."""


class BackgroundProcessor:
    """Processes in this process: when asked to, and every minute.

    The second is for what was left by a process that crashed or ended, and for failures.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_wanted = asyncio.Event()
        self._is_stopping = False

    def process_after(self, transaction: Transaction, _key: str) -> None:
        transaction.after_commit(self._want)

    async def _want(self) -> None:
        self._is_wanted.set()

    async def run(self) -> None:
        pause_seconds = START_SECONDS
        while not self._is_stopping:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_wanted.wait(), pause_seconds)
            self._is_wanted.clear()
            pause_seconds = SWEEP_SECONDS
            await self._sweep()

    async def _sweep(self) -> None:
        try:
            while not self._is_stopping and await process_next(self._database):
                pass
        except Unavailable:
            pass  # logged, and the next sweep comes
        except Exception:
            log.exception("webhooks not swept")  # the next one is worth a try

    def stop(self) -> None:
        """End after the attempt that runs, if any."""
        self._is_stopping = True
        self._is_wanted.set()


@asynccontextmanager
async def open_background_processor(database: Database) -> AsyncIterator[BackgroundProcessor]:
    processor = BackgroundProcessor(database)
    task = asyncio.create_task(processor.run())
    try:
        yield processor
    finally:
        processor.stop()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        task.cancel()  # rolls back what is not done; another process, or the next start, does it
        with suppress(asyncio.CancelledError):
            await task
