"""The rules of accounts, log-in and refresh tokens.

A session begins with a log-in and has one valid refresh token at a time. Each refresh replaces it.
A token that is used twice was stolen, either from the client or by the client's own copy. The
session then ends for both (RFC 9700, 4.14.2).
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Interval, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db.session import Database
from app.features.accounts.errors import (
    DuplicateAccount,
    SessionEnded,
    UnknownAccount,
    WrongCredentials,
)
from app.features.accounts.models import Account, LoginSession
from app.features.accounts.passwords import Passwords
from app.features.accounts.refresh_token import new_refresh_token, parse_refresh_token
from app.features.accounts.schemas import AccountRead

log = structlog.get_logger()

_COLUMNS = (Account.id, Account.email, Account.created_at)
_REGISTER = (
    insert(Account).on_conflict_do_nothing(index_elements=[Account.email]).returning(*_COLUMNS)
)
_FIND = select(*_COLUMNS).where(Account.id == bindparam("id"))
_FIND_HASH = select(Account.id, Account.password_hash).where(Account.email == bindparam("email"))
_EXPIRES_AT = func.now() + bindparam("lifetime", type_=Interval)
_ROTATE = (
    update(LoginSession)
    .where(
        LoginSession.id == bindparam("of_id"),
        LoginSession.digest == bindparam("old_digest"),
        LoginSession.expires_at > func.now(),
    )
    .values(digest=bindparam("new_digest"), expires_at=_EXPIRES_AT)
    .returning(LoginSession.account_id)
    .execution_options(synchronize_session=False)
)
_END = (
    delete(LoginSession)
    .where(LoginSession.id == bindparam("id"))
    .returning(LoginSession.account_id, (LoginSession.expires_at > func.now()).label("is_live"))
    .execution_options(synchronize_session=False)
)


@dataclass(frozen=True)
class Login:
    """The result of a log-in or a refresh."""

    account_id: uuid.UUID
    refresh_token: str


async def register(
    database: Database, passwords: Passwords, email: str, password: str
) -> AccountRead:
    """Create an account.

    The password is hashed before a connection is taken, and whether or not the address is free.

    Raises:
        DuplicateAccount: an account has this address.
    """
    new = {"email": email, "password_hash": await passwords.hash(password)}
    async with database.session() as session:
        row = (await session.execute(_REGISTER, new)).mappings().one_or_none()
    if row is None:
        raise DuplicateAccount("There is an account with this e-mail address.")
    return AccountRead.model_validate(row)


async def find(connection: AsyncConnection, account_id: uuid.UUID) -> AccountRead:
    """Return an account.

    Raises:
        UnknownAccount: the account was deleted.
    """
    row = (await connection.execute(_FIND, {"id": account_id})).mappings().one_or_none()
    if row is None:
        raise UnknownAccount("There is no such account any more.")
    return AccountRead.model_validate(row)


async def log_in(
    database: Database, passwords: Passwords, email: str, password: str, lifetime: timedelta
) -> Login:
    """Begin a session, and delete the account's expired ones.

    Args:
        database: no connection is held while the password is verified.
        passwords: verifies the password.
        email: the address of the account.
        password: the password.
        lifetime: of the session, unless it is refreshed.

    Raises:
        WrongCredentials: the address or the password is wrong. Both take the same time.
    """
    async with database.read_connection() as connection:
        found = (await connection.execute(_FIND_HASH, {"email": email})).one_or_none()
    stored = found.password_hash if found else None
    is_right, better_hash = await passwords.verify(password, stored)
    if found is None or not is_right:
        raise WrongCredentials("The e-mail address or the password is wrong.")
    session_id = uuid.uuid4()
    token, digest = new_refresh_token(session_id)
    async with database.session() as session:
        if better_hash:
            rehash = update(Account).where(Account.id == found.id)
            await session.execute(rehash.values(password_hash=better_hash))
        await session.execute(
            delete(LoginSession).where(
                LoginSession.account_id == found.id, LoginSession.expires_at <= func.now()
            )
        )
        session.add(
            LoginSession(
                id=session_id,
                account_id=found.id,
                digest=digest,
                expires_at=func.now() + lifetime,
            )
        )
    return Login(found.id, token)


async def refresh(database: Database, token: str, lifetime: timedelta) -> Login:
    """Exchange a refresh token for the next one. Of two concurrent uses one succeeds.

    Raises:
        SessionEnded: the token is unknown or expired, or was used before, which ends the session.
    """
    session_id, old_digest = parse_refresh_token(token)
    next_token, new_digest = new_refresh_token(session_id)
    rotation = {
        "of_id": session_id,
        "old_digest": old_digest,
        "new_digest": new_digest,
        "lifetime": lifetime,
    }
    async with database.session() as session:
        rotated = (await session.execute(_ROTATE, rotation)).one_or_none()
        ended = None
        if rotated is None:
            ended = (await session.execute(_END, {"id": session_id})).one_or_none()
    # An error inside of the transaction would roll back the deletion.
    if rotated is not None:
        return Login(rotated.account_id, next_token)
    if ended is not None and ended.is_live:
        log.warning("session ended: refresh token reused", account_id=str(ended.account_id))
    raise SessionEnded("Log in again.")


async def log_out(session: AsyncSession, token: str) -> None:
    """End the session of a refresh token, if it has not ended yet. An earlier token works too."""
    session_id, _ = parse_refresh_token(token)
    await session.execute(_END, {"id": session_id})
