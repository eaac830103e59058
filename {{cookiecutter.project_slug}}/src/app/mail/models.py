"""The table of mails that are not sent yet."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import GeneratedId, Model


class MailRecord(Model):
    """A mail to send. It is composed when it is sent, so it holds no link and no token."""

    __tablename__ = "mails"

    id: Mapped[GeneratedId]
    name: Mapped[str]
    arguments: Mapped[dict[str, Any]] = mapped_column(JSONB)
    languages: Mapped[str | None]  # of the header Accept-Language
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    # Time of the next attempt; null once the mail has failed for good.
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index(None, "due_at"),)
