"""Store each delivery once, and process it until it succeeds or has failed for good."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import structlog
from sqlalchemy import bindparam, case, func, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, after_commit
from app.errors import Unavailable
from app.features.webhooks.kinds import NewEvent
from app.features.webhooks.models import WebhookDelivery
from app.features.webhooks.process import Event, process

log = structlog.get_logger()

PROCESS_SECONDS = 30  # longest attempt
MAX_ATTEMPTS = 10
FIRST_PAUSE_SECONDS = 30  # after a failure; each further pause is twice as long
START_SECONDS = 2  # from the start of a process to its first sweep
SWEEP_SECONDS = 60
STOP_SECONDS = 3  # for the running attempt, when the process stops
MAX_ERROR_LENGTH = 500

STORE = (
    insert(WebhookDelivery)
    .on_conflict_do_nothing(index_elements=[WebhookDelivery.source, WebhookDelivery.id])
    .returning(WebhookDelivery.id)
)
TAKE = (
    select(
        WebhookDelivery.source,
        WebhookDelivery.id,
        WebhookDelivery.received_at,
        WebhookDelivery.body,
        WebhookDelivery.type,
    )
    .where(WebhookDelivery.due_at <= func.now())
    .order_by(WebhookDelivery.due_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_THIS = (WebhookDelivery.source == bindparam("of_source"), WebhookDelivery.id == bindparam("of_id"))
_FINISH = (
    update(WebhookDelivery)
    .where(*_THIS)
    .values(
        processed_at=func.now(), due_at=null(), error=null(), attempts=WebhookDelivery.attempts + 1
    )
    .returning(WebhookDelivery.attempts)
    .execution_options(synchronize_session=False)
)
_PAUSE_SECONDS = FIRST_PAUSE_SECONDS * func.power(2, WebhookDelivery.attempts)
_POSTPONE = (
    update(WebhookDelivery)
    .where(*_THIS, WebhookDelivery.processed_at.is_(None))
    .values(
        due_at=case(
            (
                WebhookDelivery.attempts + 1 < MAX_ATTEMPTS,
                func.now() + func.make_interval(0, 0, 0, 0, 0, 0, _PAUSE_SECONDS),
            ),
        ),
        error=bindparam("reason"),
        attempts=WebhookDelivery.attempts + 1,
    )
    .returning(WebhookDelivery.attempts, WebhookDelivery.due_at)
    .execution_options(synchronize_session=False)
)


async def store(session: AsyncSession, source: str, events: Iterable[NewEvent]) -> list[str]:
    """Store the events of a delivery once, and return the ids of the new ones.

    Of several transactions that store the same event at once, the first to commit has it. The
    events are sorted, so that batches with common events cannot deadlock.
    """
    values = [
        {"source": source, "id": event.id, "body": event.body, "type": event.type}
        for event in sorted(events, key=lambda event: event.id)
    ]
    return list(await session.scalars(STORE, values))


async def process_next(database: Database) -> bool:
    """Process the delivery that has been due for longest and that no other process holds.

    Returns:
        Whether there was such a delivery.

    Raises:
        Unavailable: the database cannot be reached.
    """
    event = None
    try:
        async with database.session() as session:
            row = (await session.execute(TAKE)).mappings().one_or_none()  # locked
            if row is None:
                return False
            event = Event(**row)
            async with asyncio.timeout(PROCESS_SECONDS):
                await process(event, session)
            await session.execute(_FINISH, {"of_source": event.source, "of_id": event.id})
    except Exception as error:
        if event is None:
            raise
        log.exception("webhook not processed", source=event.source, id=event.id)
        await _postpone(database, event, error)
    return True


async def _postpone(database: Database, event: Event, error: Exception) -> None:
    """Schedule the next attempt, in a new transaction: that of the attempt was rolled back."""
    reason = f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH].replace("\0", "")
    values = {"of_source": event.source, "of_id": event.id, "reason": reason}
    async with database.session() as session:
        row = (await session.execute(_POSTPONE, values)).one_or_none()
    if row is not None and row.due_at is None:
        log.error("webhook failed", source=event.source, id=event.id, attempts=row.attempts)


class Processor(Protocol):
    """Processes stored deliveries."""

    def process_on_commit(self, session: AsyncSession, key: str) -> None:
        """Process the due deliveries as soon as the session's transaction is committed."""


class BackgroundProcessor:
    """Process deliveries in this process: after each commit, and every minute.

    The sweep every minute retries failures, and resumes the work of processes that stopped.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._has_work = asyncio.Event()
        self._is_stopping = False

    def process_on_commit(self, session: AsyncSession, _key: str) -> None:
        after_commit(session, self._wake)

    async def _wake(self) -> None:
        self._has_work.set()

    async def run(self) -> None:
        pause_seconds = START_SECONDS
        while not self._is_stopping:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_work.wait(), pause_seconds)
            self._has_work.clear()
            pause_seconds = SWEEP_SECONDS
            await self._sweep()

    async def _sweep(self) -> None:
        try:
            while not self._is_stopping and await process_next(self._database):
                pass
        except Unavailable:
            pass  # logged already; the next sweep tries again
        except Exception:
            log.exception("webhooks not swept")  # the next sweep tries again

    def stop(self) -> None:
        """Stop after the running attempt, if any."""
        self._is_stopping = True
        self._has_work.set()


@asynccontextmanager
async def open_background_processor(database: Database) -> AsyncIterator[BackgroundProcessor]:
    processor = BackgroundProcessor(database)
    task = asyncio.create_task(processor.run())
    try:
        yield processor
    finally:
        processor.stop()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        task.cancel()  # rolls back the attempt; another process, or the next start, repeats it
        with suppress(asyncio.CancelledError):
            await task
