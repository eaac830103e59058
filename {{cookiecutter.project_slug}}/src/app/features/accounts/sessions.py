"""Log-in sessions and their refresh tokens.

A session begins with a log-in and has one valid refresh token at a time. Each refresh replaces it.
A later use of a replaced token means that the token was copied, and the service cannot distinguish
the copy from the original. The session then ends for both (RFC 9700, 4.14.2). During the grace
period it is not a sign of theft: two tabs refresh at once, or a client repeats a request whose
response was lost. Both get the same successor.
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import bindparam, case, delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.settings import AuthSettings
from app.auth.tokens import AccessTokens
from app.db.session import Database
from app.features.accounts import errors
from app.features.accounts.models import Account, LoginSession, ProviderLogin
from app.features.accounts.refresh_token import RefreshToken, RefreshTokens, parse_refresh_token
from app.features.accounts.schemas import SessionRead, Tokens

log = structlog.get_logger()

MAX_USER_AGENT_LENGTH = 500

_IS_LIVE = LoginSession.expires_at > func.now()
# One statement, because PostgreSQL repeats its conditions after the wait for a concurrent refresh.
_REFRESH = (
    update(LoginSession)
    .where(LoginSession.id == bindparam("session_id"), _IS_LIVE)
    .where(Account.id == LoginSession.account_id, Account.disabled_at.is_(None))
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
    .returning(LoginSession.account_id, Account.roles)
)
_END = (
    delete(LoginSession)
    .where(LoginSession.id == bindparam("session_id"))
    .returning(LoginSession.account_id, _IS_LIVE.label("is_live"))
)
# The lock waits for a change of the password and for the end of an account, which end sessions.
_BEGIN = (
    insert(LoginSession)
    .from_select(
        ["id", "account_id", "digest", "user_agent", "expires_at"],
        select(
            bindparam("session_id", type_=LoginSession.id.type),
            Account.id,
            bindparam("digest", type_=LoginSession.digest.type),
            bindparam("user_agent", type_=LoginSession.user_agent.type),
            func.now() + bindparam("lifetime", type_=INTERVAL),
        )
        .where(Account.id == bindparam("account_id"), Account.disabled_at.is_(None))
        .where(
            Account.password_hash.is_not_distinct_from(
                bindparam("password_hash", type_=Account.password_hash.type)
            )
        )
        .with_for_update(read=True),
    )
    .returning(LoginSession.id)
)
_OF_ACCOUNT = LoginSession.account_id == bindparam("account_id")
_DELETE_EXPIRED = delete(LoginSession).where(_OF_ACCOUNT, ~_IS_LIVE)
_DELETE_ALL = delete(LoginSession).where(_OF_ACCOUNT)
_DELETE_CODES = delete(ProviderLogin).where(ProviderLogin.account_id == bindparam("account_id"))
_LIST = (
    select(
        LoginSession.id,
        LoginSession.user_agent,
        LoginSession.last_used_at,
        LoginSession.created_at,
        LoginSession.expires_at,
    )
    .where(_OF_ACCOUNT, _IS_LIVE)
    .order_by(LoginSession.last_used_at.desc())
)
_REVOKE = (
    delete(LoginSession)
    .where(_OF_ACCOUNT, LoginSession.id == bindparam("session_id"))
    .returning(LoginSession.id)
)


class Sessions:
    """The rules that need the settings."""

    def __init__(self, settings: AuthSettings, tokens: AccessTokens) -> None:
        self._tokens = tokens
        self._refresh_tokens = RefreshTokens(settings)
        self._lifetime = timedelta(days=settings.session_days)
        self._grace = timedelta(seconds=settings.refresh_grace_seconds)

    async def begin(
        self,
        session: AsyncSession,
        account_id: uuid.UUID,
        password_hash: str | None,
        roles: Sequence[str],
        user_agent: str | None,
    ) -> Tokens:
        """Begin a session, and delete the account's expired ones.

        Args:
            session: the transaction.
            account_id: the account.
            password_hash: the hash that the password was compared with, or the current one if
                a provider has logged the account in.
            roles: of the account.
            user_agent: of the client.

        Raises:
            WrongCredentials: the account was disabled or deleted, or has another password now.
        """
        token = self._refresh_tokens.create()
        await session.execute(_DELETE_EXPIRED, {"account_id": account_id})
        values = {
            "session_id": token.session_id,
            "account_id": account_id,
            "password_hash": password_hash,
            "digest": token.digest,
            "user_agent": user_agent[:MAX_USER_AGENT_LENGTH] if user_agent else None,
            "lifetime": self._lifetime,
        }
        connection = await session.connection()  # a session would insert the parameters
        begun = await connection.execute(_BEGIN, values)
        if begun.one_or_none() is None:
            raise errors.WrongCredentials("The e-mail address or the password is wrong.")
        return self._tokens_of(account_id, roles, token)

    async def begin_for(
        self, session: AsyncSession, account: Account, user_agent: str | None
    ) -> Tokens:
        """Begin a session of an account that a provider has logged in.

        Raises:
            AccountDisabled: an administrator has disabled the account.
        """
        if account.disabled_at is not None:
            raise errors.AccountDisabled("An administrator has disabled the account.")
        return await self.begin(
            session, account.id, account.password_hash, account.roles, user_agent
        )

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
            "lifetime": self._lifetime,
            "grace": self._grace,
        }
        async with database.read_connection() as connection:
            refreshed = (await connection.execute(_REFRESH, values)).one_or_none()
            if refreshed is not None:
                return self._tokens_of(refreshed.account_id, refreshed.roles, successor)
            ended = (await connection.execute(_END, {"session_id": token.session_id})).one_or_none()
        if ended and ended.is_live:
            log.warning("session ended: refresh token reused", account_id=str(ended.account_id))
        raise errors.SessionEnded("Log in again.")

    def _tokens_of(
        self, account_id: uuid.UUID, roles: Sequence[str], refresh_token: RefreshToken
    ) -> Tokens:
        return Tokens(
            access_token=self._tokens.issue(account_id, roles, refresh_token.session_id),
            expires_in=int(self._tokens.lifetime.total_seconds()),
            refresh_token=refresh_token.text,
        )


async def log_out(session: AsyncSession, refresh_token: str) -> None:
    """End the session of a refresh token, if it has not ended yet. An earlier token works too."""
    if token := parse_refresh_token(refresh_token):
        await session.execute(delete(LoginSession).where(LoginSession.id == token.session_id))


async def find_sessions(
    connection: AsyncConnection, account_id: uuid.UUID
) -> Sequence[SessionRead]:
    """Return the sessions of an account, the last used one first."""
    rows = (await connection.execute(_LIST, {"account_id": account_id})).mappings()
    return [SessionRead.model_validate(row) for row in rows]


async def revoke(session: AsyncSession, account_id: uuid.UUID, session_id: uuid.UUID) -> None:
    """End a session of an account.

    Raises:
        SessionNotFound: the account has no such session.
    """
    values = {"account_id": account_id, "session_id": session_id}
    if (await session.execute(_REVOKE, values)).one_or_none() is None:
        raise errors.SessionNotFound("The account has no such session.")


async def end_all(session: AsyncSession, account_id: uuid.UUID) -> None:
    """End every session of an account, and every log-in with a provider that has none yet."""
    await session.execute(_DELETE_CODES, {"account_id": account_id})
    await session.execute(_DELETE_ALL, {"account_id": account_id})
