"""The tables of accounts and of their log-in sessions."""

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import GeneratedId, Model


class Account(Model):
    __tablename__ = "accounts"

    id: Mapped[GeneratedId]
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("email = lower(email)", name="email_is_lower_case"),)


class LoginSession(Model):
    """A session from log-in to log-out. Its refresh token is replaced at each use."""

    __tablename__ = "sessions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    digest: Mapped[bytes]  # of the valid refresh token
    previous_digest: Mapped[bytes | None]  # of the token that it replaced
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())  # log-in or refresh
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
