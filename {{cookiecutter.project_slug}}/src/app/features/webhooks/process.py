"""What is done about a webhook: yours to write."""

from dataclasses import dataclass
from datetime import datetime

import structlog

from app.db.database import Transaction

log = structlog.get_logger()


@dataclass(frozen=True)
class Event:
    """An event whose signature was right.

    Attributes:
        source: its name in WEBHOOK_SECRETS.
        id: the same whenever the sender repeats the event.
        received_at: when it was stored.
        body: what the sender signed. Of a batch of Meta, it has one update.
        type: what GitHub's header says, which is not signed; None of other senders.
    """

    source: str
    id: str
    received_at: datetime
    body: bytes
    type: str | None = None


async def process(event: Event, transaction: Transaction) -> None:  # noqa: ARG001 - what you write will take it
    """Act on an event.

    What is changed through the transaction is committed together with the mark that the event is
    processed: both or neither. What is done elsewhere may be done again after a crash, so pass
    the event's id on as an idempotency key.

    Args:
        event: comes once, in no particular order.
        transaction: to change something in; nobody commits it but the caller.

    Raises:
        Exception: any; then nothing stays, and the event comes again later.
    """
    log.info("webhook", source=event.source, id=event.id, bytes=len(event.body))
