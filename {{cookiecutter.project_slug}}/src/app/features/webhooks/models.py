"""The table of deliveries."""

from datetime import datetime

from sqlalchemy import Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import Model


class WebhookDelivery(Model):
    __tablename__ = "webhook_deliveries"

    source: Mapped[str] = mapped_column(primary_key=True)
    # A retry has the same id: the sender's own, or a digest of the content that it repeats.
    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[bytes]  # the signed bytes, unless it was a batch
    type: Mapped[str | None]  # from a header
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Time of the next attempt; null once the delivery is processed or has failed for good.
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    processed_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    error: Mapped[str | None]  # of the last attempt

    __table_args__ = (Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),)
