"""The rules: who may log in, and how long that lasts.

A session begins with a log-in. It has one refresh token at a time, which is good once: it is
exchanged for the next. Whoever sends an earlier one has it from somewhere, and nobody can tell
which of the two is the thief: the session ends for both (RFC 9700, 4.14.2).
"""

import hashlib
import secrets
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Interval, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.db.database import Database
from app.errors import Conflict, Unauthorized
from app.features.accounts.models import AccountModel, SessionModel
from app.features.accounts.passwords import Passwords
from app.features.accounts.schemas import Account

log = structlog.get_logger()

SECRET_BYTES = 32  # 256 random bits: a plain digest is enough, there is nothing to guess

_COLUMNS = (AccountModel.id, AccountModel.email, AccountModel.created_at)
_REGISTER = (
    insert(AccountModel)
    .on_conflict_do_nothing(index_elements=[AccountModel.email])
    .returning(*_COLUMNS)
)
_FIND = select(*_COLUMNS).where(AccountModel.id == bindparam("id"))
_FIND_HASH = select(AccountModel.id, AccountModel.password_hash).where(
    AccountModel.email == bindparam("email")
)
_REHASH = (
    update(AccountModel)
    .where(AccountModel.id == bindparam("of_id"))
    .values(password_hash=bindparam("password_hash"))
    .returning(AccountModel.id)
)
_EXPIRES_AT = func.now() + bindparam("lifetime", type_=Interval)
_BEGIN = insert(SessionModel).values(expires_at=_EXPIRES_AT).returning(SessionModel.id)
_ROTATE = (
    update(SessionModel)
    .where(
        SessionModel.id == bindparam("of_id"),
        SessionModel.digest == bindparam("old_digest"),
        SessionModel.expires_at > func.now(),
    )
    .values(digest=bindparam("new_digest"), expires_at=_EXPIRES_AT)
    .returning(SessionModel.account_id)
)
_END = (
    delete(SessionModel)
    .where(SessionModel.id == bindparam("id"))
    .returning(SessionModel.account_id, (SessionModel.expires_at > func.now()).label("is_live"))
)
_END_EXPIRED = (
    delete(SessionModel)
    .where(
        SessionModel.account_id == bindparam("account_id"), SessionModel.expires_at <= func.now()
    )
    .returning(SessionModel.id)
)


class DuplicateAccount(Conflict):
    type = "urn:problem:duplicate-account"
    title = "Duplicate Account"


class UnknownAccount(Unauthorized):
    type = "urn:problem:unknown-account"
    title = "Unknown Account"


class WrongCredentials(Unauthorized):
    type = "urn:problem:wrong-credentials"
    title = "Wrong Credentials"


class SessionEnded(Unauthorized):
    type = "urn:problem:session-ended"
    title = "Session Ended"


@dataclass(frozen=True)
class Session:
    """What somebody who is logged in gets: who they are, and the next refresh token."""

    account_id: uuid.UUID
    refresh_token: str


async def register(database: Database, passwords: Passwords, email: str, password: str) -> Account:
    """Make an account.

    The hash is made before a connection is taken, and taken or not the address costs the same.

    Raises:
        DuplicateAccount: somebody has one with this address.
    """
    new = {"email": email, "password_hash": await passwords.hash(password)}
    async with database.transaction() as transaction:
        rows = await transaction.fetch(_REGISTER, new)
    if not rows:
        raise DuplicateAccount("There is an account with this e-mail address.")
    return Account.model_validate(rows[0])


async def find(database: Database, account_id: uuid.UUID) -> Account:
    rows = await database.fetch(_FIND, {"id": account_id})
    if not rows:
        raise UnknownAccount("There is no such account any more.")
    return Account.model_validate(rows[0])


async def log_in(
    database: Database, passwords: Passwords, email: str, password: str, lifetime: timedelta
) -> Session:
    """Begin a session; the account's expired ones are cleared away.

    Args:
        database: where accounts are. No connection is held while the password is verified.
        passwords: verify them.
        email: of the account.
        password: as it was typed.
        lifetime: of the session, unless it is refreshed.

    Raises:
        WrongCredentials: whichever of the two is wrong, and after the same time.
    """
    rows = await database.fetch(_FIND_HASH, {"email": email})
    stored = rows[0]["password_hash"] if rows else None
    is_right, better_hash = await passwords.verify(password, stored)
    if not rows or not is_right:
        raise WrongCredentials("The e-mail address or the password is wrong.")
    account_id: uuid.UUID = rows[0]["id"]
    session_id = uuid.uuid4()
    token, digest = _new_token(session_id)
    async with database.transaction() as transaction:
        if better_hash:
            rehashed = {"of_id": account_id, "password_hash": better_hash}
            await transaction.fetch(_REHASH, rehashed)
        await transaction.fetch(_END_EXPIRED, {"account_id": account_id})
        new = {"id": session_id, "account_id": account_id, "digest": digest, "lifetime": lifetime}
        await transaction.fetch(_BEGIN, new)
    return Session(account_id, token)


async def refresh(database: Database, token: str, lifetime: timedelta) -> Session:
    """Exchange a refresh token for the next one.

    Of two who send the same token at once, the second finds that it has changed.

    Raises:
        SessionEnded: it is unknown or expired, or was used before, which ends the session.
    """
    session_id, old_digest = _read_token(token)
    next_token, new_digest = _new_token(session_id)
    exchange = {
        "of_id": session_id,
        "old_digest": old_digest,
        "new_digest": new_digest,
        "lifetime": lifetime,
    }
    async with database.transaction() as transaction:
        rotated = await transaction.fetch(_ROTATE, exchange)
        ended = [] if rotated else await transaction.fetch(_END, {"id": session_id})
    # Only now, because raising inside of the transaction would bring the session back.
    if rotated:
        return Session(rotated[0]["account_id"], next_token)
    if ended and ended[0]["is_live"]:
        log.warning("session ended: a token came twice", account_id=str(ended[0]["account_id"]))
    raise SessionEnded("Log in again.")


async def log_out(database: Database, token: str) -> None:
    """End the session of a refresh token, if it has not ended yet; an earlier one will do."""
    session_id, _ = _read_token(token)
    async with database.transaction() as transaction:
        await transaction.fetch(_END, {"id": session_id})


def _new_token(session_id: uuid.UUID) -> tuple[str, bytes]:
    """A refresh token, which has the session's id and a secret, and the digest to be stored."""
    secret = secrets.token_bytes(SECRET_BYTES)
    token = urlsafe_b64encode(session_id.bytes + secret).decode()
    return token, hashlib.sha256(secret).digest()


def _read_token(token: str) -> tuple[uuid.UUID, bytes]:
    content = urlsafe_b64decode(token)
    return uuid.UUID(bytes=content[:16]), hashlib.sha256(content[16:]).digest()
