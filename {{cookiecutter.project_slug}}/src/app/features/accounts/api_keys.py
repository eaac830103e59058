"""API keys: a prefix, a public part and a secret. The database stores only digests.

A secret has 256 random bits, so a digest without a salt suffices: argon2 slows down guesses of
passwords, and 256 random bits cannot be guessed. It would cost each request 20 ms of a core.
"""

import hashlib
import re
import secrets
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import Identity
from app.auth.roles import permissions_of
from app.db.session import Database, after_commit
from app.features.accounts import errors
from app.features.accounts.models import Account, ApiKey
from app.features.accounts.schemas import KeyRead, NewKey

log = structlog.get_logger()

MAX_KEYS = 50  # of an account
OVERLAP = timedelta(hours=24)  # in which a rotated key stays valid
USE_INTERVAL = timedelta(minutes=1)  # between two writes of the last use
KEY = re.compile(r"(?P<prefix>key_[0-9a-f]{12})_[A-Za-z0-9_-]{43}")  # secret scanners find it

_IS_VALID = ApiKey.expires_at > func.now()
_IS_STALE = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - USE_INTERVAL)
_FIND = (
    select(ApiKey.id, ApiKey.account_id, ApiKey.scopes, Account.roles, _IS_STALE.label("is_stale"))
    .join(Account, Account.id == ApiKey.account_id)
    .where(ApiKey.digest == bindparam("sent"), _IS_VALID, Account.disabled_at.is_(None))
)
# Of requests at once, one writes.
_USE = (
    update(ApiKey)
    .where(ApiKey.id == bindparam("key_id"), _IS_STALE)
    .values(last_used_at=func.now())
)
_OF_ACCOUNT = ApiKey.account_id == bindparam("account")
_LIST = select(*ApiKey.__table__.columns).where(_OF_ACCOUNT).order_by(ApiKey.created_at.desc())
_REVOKE = delete(ApiKey).where(_OF_ACCOUNT, ApiKey.id == bindparam("key_id")).returning(ApiKey.id)
_DELETE_EXPIRED = delete(ApiKey).where(_OF_ACCOUNT, ~_IS_VALID)


class ApiKeys:
    """Verifies the keys of requests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_key(self, token: str) -> bool:
        """Return whether a bearer token has the form of an API key."""
        return KEY.fullmatch(token) is not None

    async def verify(self, key: str) -> Identity | None:
        """Return the sender of a key, in one round trip, or in two once a minute.

        The sender has the scopes of the key that its account still has. None means that the key is
        unknown, revoked or expired, or that its account is disabled.
        """
        async with self._database.read_connection() as connection:
            found = (await connection.execute(_FIND, {"sent": _digest(key)})).one_or_none()
            if found is None:
                return None
            if found.is_stale:
                await connection.execute(_USE, {"key_id": found.id})
        permissions = permissions_of(found.roles).intersection(found.scopes)
        return Identity(found.account_id, str(found.account_id), permissions)


async def create(session: AsyncSession, account_id: uuid.UUID, new: NewKey) -> tuple[KeyRead, str]:
    """Return a new key of an account, and its text.

    Raises:
        ScopeNotAllowed: the account lacks a permission.
        TooManyKeys: the account has the maximum number of keys.
    """
    await _check(session, account_id, new.scopes)
    expires_at = func.now() + timedelta(days=new.expires_in_days)
    return await _add(session, account_id, new.name, new.scopes, expires_at)


async def rotate(
    session: AsyncSession, account_id: uuid.UUID, key_id: uuid.UUID
) -> tuple[KeyRead, str]:
    """Return a new key with the name, the scopes and the lifetime of another one.

    The old key stays valid during the overlap, unless it expires earlier.

    Raises:
        KeyNotFound: the account has no such key, or it has expired.
        ScopeNotAllowed: the account has lost a permission of the key.
        TooManyKeys: the account has the maximum number of keys.
    """
    found = select(ApiKey).where(_OF_ACCOUNT, ApiKey.id == key_id, _IS_VALID).with_for_update()
    old = await session.scalar(found, {"account": account_id})
    if old is None:
        raise errors.KeyNotFound("The account has no such API key.")
    await _check(session, account_id, old.scopes)
    lifetime = old.expires_at - old.created_at
    old.expires_at = func.least(ApiKey.expires_at, func.now() + OVERLAP)
    return await _add(session, account_id, old.name, old.scopes, func.now() + lifetime)


async def find_all(connection: AsyncConnection, account_id: uuid.UUID) -> Sequence[KeyRead]:
    """Return the keys of an account, the newest first, also expired ones."""
    rows = (await connection.execute(_LIST, {"account": account_id})).mappings()
    return [KeyRead.model_validate(row) for row in rows]


async def revoke(session: AsyncSession, account_id: uuid.UUID, key_id: uuid.UUID) -> None:
    """Delete a key. It is refused at once.

    Raises:
        KeyNotFound: the account has no such key.
    """
    values = {"account": account_id, "key_id": key_id}
    if (await session.execute(_REVOKE, values)).one_or_none() is None:
        raise errors.KeyNotFound("The account has no such API key.")
    _log(session, "API key revoked", account_id, key_id)


async def _check(session: AsyncSession, account_id: uuid.UUID, scopes: Sequence[str]) -> None:
    """Check whether the account may have another key with these scopes.

    The account is locked, so that it has no more than the maximum number of keys. Its expired keys
    are deleted.
    """
    locked = select(Account.roles).where(Account.id == account_id, Account.disabled_at.is_(None))
    roles = await session.scalar(locked.with_for_update())
    if roles is None:
        raise errors.UnknownAccount("The account was deleted or disabled.")
    await session.execute(_DELETE_EXPIRED, {"account": account_id})
    count = select(func.count()).select_from(ApiKey).where(_OF_ACCOUNT)
    if (await session.scalar(count, {"account": account_id}) or 0) >= MAX_KEYS:
        raise errors.TooManyKeys(f"The account has {MAX_KEYS} API keys: revoke one.")
    if missing := sorted(set(scopes) - permissions_of(roles)):
        raise errors.ScopeNotAllowed(f"The account lacks the permission {missing[0]}.")


async def _add(
    session: AsyncSession,
    account_id: uuid.UUID,
    name: str,
    scopes: Sequence[str],
    expires_at: ColumnElement[datetime],
) -> tuple[KeyRead, str]:
    prefix = f"key_{secrets.token_hex(6)}"
    text = f"{prefix}_{secrets.token_urlsafe(32)}"
    new = insert(ApiKey).values(
        account_id=account_id,
        name=name,
        prefix=prefix,
        digest=_digest(text),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    key = (await session.scalars(new.returning(ApiKey))).one()
    _log(session, "API key created", account_id, key.id)
    return KeyRead.model_validate(key), text


def _log(session: AsyncSession, message: str, account_id: uuid.UUID, key_id: uuid.UUID) -> None:
    """Log a change after its commit."""

    async def log_change() -> None:
        log.info(message, account_id=str(account_id), key_id=str(key_id))

    after_commit(session, log_change)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
