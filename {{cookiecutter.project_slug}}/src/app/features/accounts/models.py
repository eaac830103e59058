"""The tables of accounts: sessions, links in mails, attempts to guess, providers, keys, acts."""

import enum
import uuid
from datetime import datetime

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import GeneratedId, Model, NumberedId


class Account(Model):
    __tablename__ = "accounts"

    id: Mapped[GeneratedId]
    email: Mapped[str] = mapped_column(unique=True)
    email_verified_at: Mapped[datetime | None]
    password_hash: Mapped[str | None]  # None: only providers log the account in
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint("email = lower(email)", name="email_is_lower_case"),)

    @property
    def has_password(self) -> bool:
        return self.password_hash is not None


class LoginSession(Model):
    """A session from log-in to log-out. Its refresh token is replaced at each use."""

    __tablename__ = "sessions"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    account_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    digest: Mapped[bytes]  # of the valid refresh token
    previous_digest: Mapped[bytes | None]  # of the token that it replaced
    user_agent: Mapped[str | None]  # at the log-in
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())  # log-in or refresh
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Purpose(enum.Enum):
    """The action of a link."""

    VERIFY_EMAIL = "verify-email"
    RESET_PASSWORD = "reset-password"  # noqa: S105 - an action
    CHANGE_EMAIL = "change-email"


class LinkToken(Model):
    """A token of a link in a mail, for one use."""

    __tablename__ = "account_tokens"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    purpose: Mapped[Purpose]
    account_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    email: Mapped[str]  # the address that the mail was sent to
    expires_at: Mapped[datetime] = mapped_column(index=True)  # each mail deletes expired ones


class Attempt(Model):
    """The attempts of a subject: see `attempts.py`."""

    __tablename__ = "attempts"

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # of the subject
    ends_at: Mapped[datetime] = mapped_column(index=True)  # every attempt is regained then


class ProviderLink(Model):
    """A user of a provider, who logs in to an account."""

    __tablename__ = "provider_links"

    id: Mapped[GeneratedId]
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    provider: Mapped[str]  # its name in the settings
    issuer: Mapped[str]
    subject: Mapped[str]  # the user's id at the issuer
    email: Mapped[str]  # at the first log-in
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("issuer", "subject"),
        UniqueConstraint("account_id", "issuer"),  # also the index of the account
    )


class ProviderLogin(Model):
    """A log-in with a provider: until the provider answers, then until its code is exchanged."""

    __tablename__ = "provider_logins"

    digest: Mapped[bytes] = mapped_column(primary_key=True)  # of the state, then of the code
    provider: Mapped[str]
    code_challenge: Mapped[str | None]  # of the frontend
    account_id: Mapped[uuid.UUID | None] = mapped_column(  # None: the provider has not answered
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    expires_at: Mapped[datetime] = mapped_column(index=True)  # each start deletes expired ones


class ApiKey(Model):
    """A key of a machine. It has some of the permissions of its account."""

    __tablename__ = "api_keys"

    id: Mapped[GeneratedId]
    account_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("accounts.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str]
    prefix: Mapped[str]  # the first characters of the key
    digest: Mapped[bytes] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]  # written once a minute
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Act(enum.Enum):
    """A change of another account by an administrator, or of its own providers by an owner."""

    GRANT = "grant"
    REVOKE = "revoke"
    DISABLE = "disable"
    ENABLE = "enable"
    LINK = "link"
    UNLINK = "unlink"
    TAKE_OVER = "take-over"


class AdministrativeAct(Model):
    """An act of an administrator or of an owner. No foreign keys: it outlives the accounts."""

    __tablename__ = "administrative_acts"

    id: Mapped[NumberedId]
    actor_id: Mapped[uuid.UUID | None]  # None: the command line
    act: Mapped[Act]
    target_id: Mapped[uuid.UUID] = mapped_column(index=True)
    role: Mapped[str | None]
    provider: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
