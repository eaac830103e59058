"""The table."""

from datetime import datetime

from sqlalchemy import TIMESTAMP, BigInteger, Index, LargeBinary, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base


class DeliveryModel(Base):
    __tablename__ = "webhook_deliveries"

    source: Mapped[str] = mapped_column(Text, primary_key=True)
    # The same when the sender retries: the sender's own id, or a digest of what it repeats.
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)  # as it was signed, unless it was a batch
    type: Mapped[str | None] = mapped_column(Text)  # as a header says
    received_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
    # The next attempt; null once it is processed or given up.
    due_at: Mapped[datetime | None] = mapped_column(
        TIMESTAMP(timezone=True), server_default=func.now()
    )
    processed_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
    attempts: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    error: Mapped[str | None] = mapped_column(Text)  # of the last attempt

    __table_args__ = (Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),)
