"""Store each delivery once, and process it until it succeeds or has failed for good."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.features.webhooks.kinds import NewEvent
from app.features.webhooks.models import WebhookDelivery
from app.features.webhooks.process import Event, process

log = structlog.get_logger()

PROCESS_SECONDS = 30  # longest attempt
MAX_ATTEMPTS = 10
FIRST_PAUSE_SECONDS = 30  # after a failure; each further pause is twice as long
MAX_ERROR_LENGTH = 500

STORE = (
    insert(WebhookDelivery)
    .on_conflict_do_nothing(index_elements=[WebhookDelivery.source, WebhookDelivery.id])
    .returning(WebhookDelivery.id)
)
TAKE = (
    select(WebhookDelivery)
    .where(WebhookDelivery.due_at <= func.now())
    .order_by(WebhookDelivery.due_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)


async def store(session: AsyncSession, source: str, events: Iterable[NewEvent]) -> list[str]:
    """Store the events of a delivery once, and return the ids of the new ones.

    If several transactions store the same event at once, only one of them returns its id. The
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
            delivery = await session.scalar(TAKE)
            if delivery is None:
                return False
            event = Event(
                delivery.source, delivery.id, delivery.received_at, delivery.body, delivery.type
            )
            async with asyncio.timeout(PROCESS_SECONDS):
                await process(event, session)
            delivery.attempts += 1
            delivery.processed_at = func.now()
            delivery.due_at = None
            delivery.error = None
    except Exception as error:
        if event is None:
            raise
        log.exception("webhook not processed", source=event.source, id=event.id)
        await _postpone(database, event, error)
    return True


async def _postpone(database: Database, event: Event, error: Exception) -> None:
    """Schedule the next attempt, in a new transaction: that of the attempt was rolled back."""
    async with database.session() as session:
        key = (event.source, event.id)
        delivery = await session.get(WebhookDelivery, key, with_for_update=True)
        if delivery is None or delivery.processed_at is not None:
            return
        delivery.error = f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH].replace("\0", "")
        pause = timedelta(seconds=FIRST_PAUSE_SECONDS * 2**delivery.attempts)
        delivery.attempts += 1
        has_failed = delivery.attempts >= MAX_ATTEMPTS
        delivery.due_at = None if has_failed else func.now() + pause
    if has_failed:
        log.error("webhook failed", source=event.source, id=event.id, attempts=delivery.attempts)
