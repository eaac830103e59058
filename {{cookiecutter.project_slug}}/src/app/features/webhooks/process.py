"""The action that a webhook triggers: replace it with your own."""

from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

log = structlog.get_logger()


@dataclass(frozen=True)
class Event:
    """An event with a valid signature.

    Attributes:
        source: the name of the source in WEBHOOK_SECRETS.
        id: the same id each time the sender repeats the event.
        received_at: the time it was stored.
        body: the signed content; one update of a batch of Meta.
        type: the event of GitHub's header, which is not signed; None for other kinds.
    """

    source: str
    id: str
    received_at: datetime
    body: bytes
    type: str | None = None


async def process(event: Event, session: AsyncSession) -> None:  # noqa: ARG001 - your code will use it
    """Act on an event.

    Changes through the session are committed together with the mark that the event is processed.
    An effect elsewhere may happen twice after a crash: pass the event's id on as an idempotency
    key.

    Args:
        event: delivered once, in no particular order.
        session: the transaction. The caller commits it.

    Raises:
        Exception: any. Then the transaction is rolled back, and the event is retried later.
    """
    log.info("webhook", source=event.source, id=event.id, bytes=len(event.body))
