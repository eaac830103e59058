"""The mails of accounts. Each attempt to send one creates its own token."""

import hashlib
import uuid

from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.accounts.link_tokens import create_token
from app.features.accounts.models import Account, Purpose
from app.mail.definition import Message, mail


@mail
async def verify_email(session: AsyncSession, *, account_id: str) -> Message | None:
    """Send a link that confirms the address of an account."""
    account = await session.get(Account, uuid.UUID(account_id))
    if account is None or account.email_verified_at is not None:
        return None
    token = await create_token(session, Purpose.VERIFY_EMAIL, account.id, account.email)
    return Message(account.email, {"token": token})


@mail
async def reset_password(session: AsyncSession, *, email: str) -> Message | None:
    """Send a link for a new password, if an account has the address."""
    account = await session.scalar(select(Account).where(Account.email == email))
    if account is None:
        return None
    token = await create_token(session, Purpose.RESET_PASSWORD, account.id, email)
    return Message(email, {"token": token})


@mail
async def change_email(
    session: AsyncSession, *, account_id: str, email: str, password_digest: str
) -> Message | None:
    """Send a link that confirms a new address, unless another account has it.

    A new password cancels the request. The lock waits for it, because it deletes earlier links.
    """
    lock = {"read": True}
    account = await session.get(Account, uuid.UUID(account_id), with_for_update=lock)
    if account is None or digest_of(account.password_hash) != password_digest:
        return None
    if await session.scalar(select(exists().where(Account.email == email))):
        return None
    token = await create_token(session, Purpose.CHANGE_EMAIL, account.id, email)
    return Message(email, {"token": token})


@mail
async def provider_linked(
    session: AsyncSession, *, account_id: str, provider: str
) -> Message | None:
    """Notify an account that a provider logs it in from now on."""
    account = await session.get(Account, uuid.UUID(account_id))
    return Message(account.email, {"provider": provider}) if account else None


@mail
async def password_ended(
    session: AsyncSession, *, account_id: str, provider: str
) -> Message | None:
    """Notify an account that a provider has confirmed its address, so that its password ended."""
    return await provider_linked.compose(session, account_id=account_id, provider=provider)


@mail
async def email_changed(_session: AsyncSession, *, old_email: str) -> Message:
    """Notify the old address of a change."""
    return Message(old_email, {})


def digest_of(password_hash: str | None) -> str:
    """Return a value that changes with the password. The hash has a random salt."""
    return hashlib.sha256((password_hash or "").encode()).hexdigest()
