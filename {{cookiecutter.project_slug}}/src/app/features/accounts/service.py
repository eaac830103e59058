"""The rules of accounts, log-in and refresh tokens.

A session begins with a log-in and has one valid refresh token at a time. Each refresh replaces it.
A later use of a replaced token means that the token was copied, and the service cannot distinguish
the copy from the original. The session then ends for both (RFC 9700, 4.14.2). During the grace
period it is not a sign of theft: two tabs refresh at once, or a client repeats a request whose
response was lost. Both get the same successor.
"""

import uuid
from datetime import timedelta

import structlog
from pydantic import Secret
from sqlalchemy import bindparam, case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import INTERVAL, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.settings import AuthSettings
from app.auth.tokens import AccessTokens
from app.db.session import Database
from app.features.accounts import errors
from app.features.accounts.models import Account, LoginSession
from app.features.accounts.passwords import Passwords
from app.features.accounts.refresh_token import RefreshToken, RefreshTokens, parse_refresh_token
from app.features.accounts.schemas import (
    MAX_PASSWORD_LENGTH,
    AccountRead,
    Registration,
    TokenForm,
    Tokens,
)

log = structlog.get_logger()

_FIND = select(Account.id, Account.email, Account.created_at).where(Account.id == bindparam("id"))
_IS_LIVE = LoginSession.expires_at > func.now()
# One statement, because PostgreSQL repeats its conditions after the wait for a concurrent refresh.
_REFRESH = (
    update(LoginSession)
    .where(LoginSession.id == bindparam("session_id"), _IS_LIVE)
    .where(
        or_(
            LoginSession.digest == bindparam("used"),
            (LoginSession.previous_digest == bindparam("used"))
            & (LoginSession.last_used_at > func.now() - bindparam("grace", type_=INTERVAL)),
        )
    )
    .values(
        digest=bindparam("successor"),
        previous_digest=bindparam("used"),
        expires_at=func.now() + bindparam("lifetime", type_=INTERVAL),
        # A repeated exchange does not extend the grace period.
        last_used_at=case(
            (LoginSession.digest == bindparam("used"), func.now()), else_=LoginSession.last_used_at
        ),
    )
    .returning(LoginSession.account_id)
)
_END = (
    delete(LoginSession)
    .where(LoginSession.id == bindparam("session_id"))
    .returning(LoginSession.account_id, _IS_LIVE.label("is_live"))
)


class Accounts:
    """The rules that need the settings, and the threads that hash passwords."""

    def __init__(self, settings: AuthSettings, tokens: AccessTokens) -> None:
        self._passwords = Passwords()
        self._tokens = tokens
        self._refresh_tokens = RefreshTokens(settings)
        self._session_lifetime = timedelta(days=settings.session_days)
        self._grace = timedelta(seconds=settings.refresh_grace_seconds)

    async def register(self, database: Database, new: Registration) -> AccountRead:
        """Create an account.

        The password is hashed before a connection is acquired, also if the address is in use.

        Raises:
            DuplicateAccount: an account has this address.
        """
        password_hash = await self._passwords.hash(new.password.get_secret_value())
        statement = insert(Account).values(email=new.email, password_hash=password_hash)
        statement = statement.on_conflict_do_nothing(index_elements=[Account.email])
        async with database.session() as session:
            account = await session.scalar(statement.returning(Account))
        if account is None:
            raise errors.DuplicateAccount("There is an account with this e-mail address.")
        return AccountRead.model_validate(account)

    async def grant(self, database: Database, form: TokenForm) -> Tokens:
        """Return the tokens for a form of the token endpoint.

        Raises:
            InvalidTokenRequest: another grant type, or a missing parameter.
            WrongCredentials: the address or the password is wrong.
            SessionEnded: the refresh token is not valid.
        """
        match form:
            case TokenForm(
                grant_type="password", username=str(username), password=Secret() as password
            ):
                return await self.log_in(database, username, password.get_secret_value())
            case TokenForm(grant_type="refresh_token", refresh_token=str(refresh_token)):
                return await self.refresh(database, refresh_token)
            case TokenForm(grant_type="password" | "refresh_token"):
                raise errors.InvalidTokenRequest("A parameter of the grant is missing.")
            case _:
                raise errors.InvalidTokenRequest(
                    "Use the grant type password or refresh_token.", "unsupported_grant_type"
                )

    async def log_in(self, database: Database, email: str, password: str) -> Tokens:
        """Begin a session, and delete the account's expired ones.

        No connection is held while the password is verified.

        Raises:
            WrongCredentials: the address or the password is wrong. Both take the same time.
        """
        async with database.read_session() as session:
            account = await session.scalar(select(Account).where(Account.email == email))
        stored_hash = account.password_hash if account else None
        sent = password[: MAX_PASSWORD_LENGTH + 1]  # no password is as long
        is_right, better_hash = await self._passwords.verify(sent, stored_hash)
        if account is None or not is_right:
            raise errors.WrongCredentials("The e-mail address or the password is wrong.")
        token = self._refresh_tokens.create()
        async with database.session() as session:
            if better_hash:
                rehash = update(Account).where(Account.id == account.id)
                await session.execute(rehash.values(password_hash=better_hash))
            own_sessions = delete(LoginSession).where(LoginSession.account_id == account.id)
            await session.execute(own_sessions.where(LoginSession.expires_at <= func.now()))
            session.add(
                LoginSession(
                    id=token.session_id,
                    account_id=account.id,
                    digest=token.digest,
                    expires_at=func.now() + self._session_lifetime,
                )
            )
        return self._tokens_of(account.id, token)

    async def refresh(self, database: Database, refresh_token: str) -> Tokens:
        """Exchange a refresh token for new tokens, in one round trip.

        Raises:
            SessionEnded: the token is unknown, expired, or was used before the grace period, which
                ends the session.
        """
        token = parse_refresh_token(refresh_token)
        if token is None:
            raise errors.SessionEnded("Log in again.")
        successor = self._refresh_tokens.successor(token)
        values = {
            "session_id": token.session_id,
            "used": token.digest,
            "successor": successor.digest,
            "lifetime": self._session_lifetime,
            "grace": self._grace,
        }
        async with database.read_connection() as connection:
            account_id = (await connection.execute(_REFRESH, values)).scalar_one_or_none()
            if account_id is not None:
                return self._tokens_of(account_id, successor)
            ended = (await connection.execute(_END, {"session_id": token.session_id})).one_or_none()
        if ended and ended.is_live:
            log.warning("session ended: refresh token reused", account_id=str(ended.account_id))
        raise errors.SessionEnded("Log in again.")

    def _tokens_of(self, account_id: uuid.UUID, refresh_token: RefreshToken) -> Tokens:
        return Tokens(
            access_token=self._tokens.issue(account_id),
            expires_in=int(self._tokens.lifetime.total_seconds()),
            refresh_token=refresh_token.text,
        )


async def find(connection: AsyncConnection, account_id: uuid.UUID) -> AccountRead:
    """Return an account.

    Raises:
        UnknownAccount: the account was deleted.
    """
    row = (await connection.execute(_FIND, {"id": account_id})).mappings().one_or_none()
    if row is None:
        raise errors.UnknownAccount("The account was deleted.")
    return AccountRead.model_validate(row)


async def log_out(session: AsyncSession, refresh_token: str) -> None:
    """End the session of a refresh token, if it has not ended yet. An earlier token works too."""
    if token := parse_refresh_token(refresh_token):
        await session.execute(delete(LoginSession).where(LoginSession.id == token.session_id))
