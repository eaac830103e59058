"""The rules of accounts, log-in and refresh tokens.

A session begins with a log-in and has one valid refresh token at a time. Each refresh replaces it.
A second use means that the token was copied, and the service cannot distinguish the copy from the
original. The session then ends for both (RFC 9700, 4.14.2).
"""

import uuid
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.settings import AuthSettings
from app.auth.tokens import AccessTokens
from app.db.session import Database
from app.features.accounts import errors
from app.features.accounts.models import Account, LoginSession
from app.features.accounts.passwords import Passwords
from app.features.accounts.refresh_token import issue_refresh_token, parse_refresh_token
from app.features.accounts.schemas import AccountRead, LoginForm, Registration, Tokens

log = structlog.get_logger()

_FIND = select(Account.id, Account.email, Account.created_at).where(Account.id == bindparam("id"))


class Accounts:
    """The rules that need the settings, and the threads that hash passwords."""

    def __init__(self, settings: AuthSettings, tokens: AccessTokens) -> None:
        self._passwords = Passwords()
        self._tokens = tokens
        self._session_lifetime = timedelta(days=settings.session_days)

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

    async def log_in(self, database: Database, form: LoginForm) -> Tokens:
        """Begin a session, and delete the account's expired ones.

        No connection is held while the password is verified.

        Raises:
            WrongCredentials: the address or the password is wrong. Both take the same time.
        """
        async with database.read_session() as session:
            account = await session.scalar(select(Account).where(Account.email == form.username))
        stored_hash = account.password_hash if account else None
        password = form.password.get_secret_value()
        is_right, better_hash = await self._passwords.verify(password, stored_hash)
        if account is None or not is_right:
            raise errors.WrongCredentials("The e-mail address or the password is wrong.")
        login = LoginSession(id=uuid.uuid4(), account_id=account.id)
        tokens = self._issue_tokens(login)
        async with database.session() as session:
            if better_hash:
                rehash = update(Account).where(Account.id == account.id)
                await session.execute(rehash.values(password_hash=better_hash))
            own_sessions = delete(LoginSession).where(LoginSession.account_id == account.id)
            await session.execute(own_sessions.where(LoginSession.expires_at <= func.now()))
            session.add(login)
        return tokens

    async def refresh(self, database: Database, refresh_token: str) -> Tokens:
        """Exchange a refresh token for new tokens. A second use of the token ends the session.

        Raises:
            SessionEnded: the token is unknown, expired, or was used before, which ends the session.
        """
        session_id, digest = parse_refresh_token(refresh_token)
        async with database.session() as session:
            login = await session.get(LoginSession, session_id, with_for_update=True)
            if login is None:
                raise errors.SessionEnded("Log in again.")
            is_live = login.expires_at > datetime.now(UTC)
            if is_live and login.digest == digest:
                return self._issue_tokens(login)
            await session.delete(login)
        # An error inside of the transaction would roll back the deletion.
        if is_live:
            log.warning("session ended: refresh token reused", account_id=str(login.account_id))
        raise errors.SessionEnded("Log in again.")

    def _issue_tokens(self, login: LoginSession) -> Tokens:
        return Tokens(
            access_token=self._tokens.issue(login.account_id),
            expires_in=int(self._tokens.lifetime.total_seconds()),
            refresh_token=issue_refresh_token(login, self._session_lifetime),
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
    session_id, _ = parse_refresh_token(refresh_token)
    await session.execute(delete(LoginSession).where(LoginSession.id == session_id))
