"""Log-ins with a provider: from the browser to the provider, and back."""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import bindparam, delete, func, insert, select
from sqlalchemy.dialects.postgresql import INTERVAL

from app.auth.errors import ProviderUnavailable
from app.db.session import Database
from app.features.accounts import errors
from app.features.accounts.models import ProviderLogin
from app.features.accounts.providers.codes import create_code
from app.features.accounts.providers.definition import (
    LoginSecrets,
    Provider,
    ProviderResponse,
    ProviderUser,
)
from app.features.accounts.providers.links import Links
from app.features.accounts.schemas import Tokens
from app.features.accounts.sessions import Sessions

LIFETIME = timedelta(minutes=10)  # in which the user logs in at the provider
MAX_SECONDS = 10  # of all requests to the provider in one log-in
MAX_DELETED = 100

_IS_LIVE = ProviderLogin.expires_at > func.now()
_ENDED = (
    select(ProviderLogin.digest)
    .where(~_IS_LIVE)
    .limit(MAX_DELETED)
    .with_for_update(skip_locked=True)
)
_DELETE_ENDED = delete(ProviderLogin).where(ProviderLogin.digest.in_(_ENDED))
_START = (
    insert(ProviderLogin)
    .values(
        digest=bindparam("new_digest"),
        provider=bindparam("name"),
        code_challenge=bindparam("challenge"),
        expires_at=func.now() + bindparam("lifetime", type_=INTERVAL),
    )
    .add_cte(_DELETE_ENDED.returning(ProviderLogin.digest).cte("ended"))
)
_FINISH = (
    delete(ProviderLogin)
    .where(ProviderLogin.digest == bindparam("used"), ProviderLogin.provider == bindparam("name"))
    .where(ProviderLogin.account_id.is_(None))
    .returning(ProviderLogin.code_challenge, _IS_LIVE.label("is_live"))
)


@dataclass(frozen=True)
class Client:
    """The browser of a log-in, and the languages of its user."""

    user_agent: str | None
    languages: str | None


class ProviderLogins:
    """Log users in with the providers of the settings.

    Args:
        providers: by name.
        sessions: begins sessions.
        links: finds accounts.
        returns_code: whether a log-in ends with a code for the frontend, in place of tokens.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        sessions: Sessions,
        links: Links,
        *,
        returns_code: bool,
    ) -> None:
        self._providers = providers
        self._sessions = sessions
        self._links = links
        self._returns_code = returns_code

    @property
    def names(self) -> list[str]:
        return list(self._providers)

    def check(self, name: str) -> None:
        """Raise ProviderNotFound if the settings have no provider with this name."""
        if name not in self._providers:
            raise errors.ProviderNotFound("No provider that logs users in has this name.")

    async def start(
        self,
        database: Database,
        name: str,
        login: LoginSecrets,
        redirect_uri: str,
        code_challenge: str | None,
    ) -> str:
        """Return the URL of the provider at which the user logs in.

        Args:
            database: stores the digest of the log-in.
            name: of the provider.
            login: the secrets of the log-in.
            redirect_uri: the URL to which the provider returns.
            code_challenge: of the frontend.

        Raises:
            CodeChallengeRequired: the log-in returns to the frontend, and has no challenge.
            ProviderUnavailable: the provider does not answer, or its answer cannot be used.
        """
        if self._returns_code and code_challenge is None:
            raise errors.CodeChallengeRequired("Send a code_challenge, as RFC 7636 describes it.")
        url = await self._providers[name].authorization_url(login, redirect_uri)
        values = {"new_digest": login.digest, "name": name, "lifetime": LIFETIME}
        values["challenge"] = code_challenge if self._returns_code else None
        async with database.read_connection() as connection:
            await connection.execute(_START, values)
        return url

    async def finish(
        self,
        database: Database,
        name: str,
        login: LoginSecrets,
        response: ProviderResponse | None,
        client: Client,
    ) -> Tokens | str:
        """Log the user in that the provider confirms. The log-in is used up, also by an error.

        Args:
            database: has the digest of the log-in.
            name: of the provider.
            login: the secrets of the log-in.
            response: of the provider; None if it has no code.
            client: of the log-in.

        Returns:
            The tokens of a new session, or a code with which the frontend gets them.

        Raises:
            LoginExpired: the log-in is unknown, expired, or was finished before.
            LoginRefused: the provider has not confirmed the user.
            ProviderUnavailable: the provider does not answer, or its answer cannot be used.
            AccountDisabled: an administrator has disabled the account.
            EmailNotVerified: the user is unknown, and has no verified address.
            OtherUserLinked: another user of the provider logs in to the account of the address.
        """
        async with database.read_connection() as connection:
            values = {"used": login.digest, "name": name}
            started = (await connection.execute(_FINISH, values)).one_or_none()
        if started is None or not started.is_live:
            raise expired()
        if response is None:
            raise errors.LoginRefused("The provider has not confirmed the log-in: begin it again.")
        user = await self._fetch_user(name, login, response)
        async with database.session() as session:
            account = await self._links.find_account(session, name, user, client.languages)
            if started.code_challenge is None:
                return await self._sessions.begin_for(session, account, client.user_agent)
            account_id: uuid.UUID = account.id
            return await create_code(session, name, account_id, started.code_challenge)

    async def _fetch_user(
        self, name: str, login: LoginSecrets, response: ProviderResponse
    ) -> ProviderUser:
        """Return the user. No connection to the database is held meanwhile."""
        try:
            async with asyncio.timeout(MAX_SECONDS):
                return await self._providers[name].fetch_user(login, response)
        except TimeoutError as error:
            raise ProviderUnavailable(f"The provider {name} is unavailable.") from error


def expired() -> errors.LoginExpired:
    return errors.LoginExpired(
        "The log-in has expired, was finished before, or began in another browser: begin it again."
    )
