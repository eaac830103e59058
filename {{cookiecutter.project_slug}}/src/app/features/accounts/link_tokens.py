"""Tokens of links in mails: random, for one use, and stored as digests."""

import hashlib
import secrets
import uuid
from datetime import timedelta

from sqlalchemy import bindparam, delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.accounts import errors
from app.features.accounts.models import LinkToken, Purpose

LIFETIME = {
    Purpose.VERIFY_EMAIL: timedelta(days=3),
    Purpose.CHANGE_EMAIL: timedelta(hours=1),
    Purpose.RESET_PASSWORD: timedelta(minutes=30),
}
_USE = (
    delete(LinkToken)
    .where(LinkToken.digest == bindparam("used"), LinkToken.purpose == bindparam("action"))
    .returning(
        LinkToken.account_id, LinkToken.email, (LinkToken.expires_at > func.now()).label("is_live")
    )
)
_DELETE_OF_ACCOUNT = delete(LinkToken).where(LinkToken.account_id == bindparam("account"))
_DELETE_EXPIRED = delete(LinkToken).where(LinkToken.expires_at <= func.now())


async def create_token(
    session: AsyncSession, purpose: Purpose, account_id: uuid.UUID, email: str
) -> str:
    """Return a new token. Expired tokens of all accounts are deleted.

    Args:
        session: the transaction.
        purpose: the only use of the token.
        account_id: the account.
        email: the address that the mail is sent to.
    """
    token = secrets.token_urlsafe(32)
    session.add(
        LinkToken(
            digest=_digest(token),
            purpose=purpose,
            account_id=account_id,
            email=email,
            expires_at=func.now() + LIFETIME[purpose],
        )
    )
    # After the insert, which locks the account: other transactions lock it before its tokens.
    await session.flush()
    await session.execute(_DELETE_EXPIRED)
    return token


async def use_token(session: AsyncSession, purpose: Purpose, token: str) -> tuple[uuid.UUID, str]:
    """Delete a token, and return its account and the address that it was sent to.

    Raises:
        InvalidLink: the token is unknown, expired, or was used before.
    """
    values = {"used": _digest(token), "action": purpose}
    row = (await session.execute(_USE, values)).one_or_none()
    if row is None or not row.is_live:
        raise errors.InvalidLink("The link is expired or was used before: ask for a new one.")
    return row.account_id, row.email


async def delete_tokens(session: AsyncSession, account_id: uuid.UUID) -> None:
    """Delete every token of an account."""
    await session.execute(_DELETE_OF_ACCOUNT, {"account": account_id})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
