"""The rules of registration and log-in."""

import uuid

from pydantic import Secret
from sqlalchemy import bindparam, exists, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import Database
from app.features.accounts import attempts, errors, mails
from app.features.accounts.models import Account
from app.features.accounts.passwords import Passwords
from app.features.accounts.providers.codes import use_code
from app.features.accounts.schemas import (
    MAX_PASSWORD_LENGTH,
    AccountRead,
    Registration,
    TokenForm,
    Tokens,
)
from app.features.accounts.sessions import Sessions
from app.mail.outbox import Outbox

_FIND = select(
    Account.id,
    Account.email,
    Account.email_verified_at,
    Account.password_hash.is_not(None).label("has_password"),
    Account.created_at,
).where(Account.id == bindparam("id"))
# One round trip counts the attempt and finds the account.
_COUNTED_CLIENT = attempts.count_in(attempts.CLIENT)
_COUNTED_ACCOUNT = attempts.count_in(attempts.ACCOUNT, after=_COUNTED_CLIENT)
_COUNT_AND_FIND = select(
    exists(select(_COUNTED_ACCOUNT.c.digest)).label("is_counted"),
    Account.id,
    Account.password_hash,
    Account.roles,
    Account.disabled_at,
).select_from(
    select(true().label("one")).subquery().outerjoin(Account, Account.email == bindparam("address"))
)


class Accounts:
    """The rules that need passwords, sessions or mails."""

    def __init__(self, passwords: Passwords, sessions: Sessions, outbox: Outbox) -> None:
        self._passwords = passwords
        self._sessions = sessions
        self._outbox = outbox

    async def register(
        self, database: Database, new: Registration, languages: str | None
    ) -> AccountRead:
        """Create an account, and send a link that confirms its address.

        The password is hashed before a connection is acquired, also if the address is in use.

        Raises:
            TooManyAttempts: the address has got many mails.
            DuplicateAccount: an account has this address.
        """
        password_hash = await self._passwords.hash(new.password.get_secret_value())
        statement = insert(Account).values(email=new.email, password_hash=password_hash)
        statement = statement.on_conflict_do_nothing(index_elements=[Account.email])
        async with database.session() as session:
            await attempts.count(session, attempts.MAIL.of(new.email))
            account = await session.scalar(statement.returning(Account))
            if account is None:
                raise errors.DuplicateAccount("There is an account with this e-mail address.")
            await self._outbox.send(
                session, mails.verify_email, languages=languages, account_id=str(account.id)
            )
        return AccountRead.model_validate(account)

    async def grant(
        self, database: Database, form: TokenForm, client: str, user_agent: str | None
    ) -> Tokens:
        """Return the tokens for a form of the token endpoint.

        Raises:
            InvalidTokenRequest: another grant type, or a missing parameter.
            WrongCredentials: the address or the password is wrong.
            TooManyAttempts: the account or the client has no attempt left.
            SessionEnded: the refresh token is not valid.
            InvalidCode: the code is not valid.
        """
        match form:
            case TokenForm(
                grant_type="password", username=str(username), password=Secret() as password
            ):
                sent = password.get_secret_value()
                return await self.log_in(database, username, sent, client, user_agent)
            case TokenForm(grant_type="refresh_token", refresh_token=str(refresh_token)):
                return await self._sessions.refresh(database, refresh_token)
            case TokenForm(
                grant_type="authorization_code", code=str(code), code_verifier=str(verifier)
            ):
                return await self.log_in_with_code(database, code, verifier, user_agent)
            case TokenForm(grant_type="password" | "refresh_token" | "authorization_code"):
                raise errors.InvalidTokenRequest("A parameter of the grant is missing.")
            case _:
                raise errors.InvalidTokenRequest(
                    "Use the grant type password, refresh_token or authorization_code.",
                    "unsupported_grant_type",
                )

    async def log_in(
        self, database: Database, email: str, password: str, client: str, user_agent: str | None
    ) -> Tokens:
        """Begin a session. No connection is held while the password is verified.

        Raises:
            TooManyAttempts: the account or the client has no attempt left.
            WrongCredentials: the address or the password is wrong. Both take the same time.
            AccountDisabled: the password is right, and the account is disabled.
        """
        by_client, of_account = attempts.CLIENT.of(client), attempts.ACCOUNT.of(email)
        values = {"address": email} | by_client.values | of_account.values
        async with database.read_connection() as connection:
            found = (await connection.execute(_COUNT_AND_FIND, values)).one()
            if not found.is_counted:
                await attempts.refuse(connection, by_client, of_account)
        sent = password[: MAX_PASSWORD_LENGTH + 1]  # no password is as long
        is_right, better_hash = await self._passwords.verify(sent, found.password_hash)
        if not is_right:
            raise errors.WrongCredentials("The e-mail address or the password is wrong.")
        if found.disabled_at is not None:
            raise errors.AccountDisabled("An administrator has disabled the account.")
        async with database.session() as session:
            await attempts.succeed(session, by_client, of_account)
            if better_hash:
                is_same = Account.password_hash == found.password_hash
                rehash = update(Account).where(Account.id == found.id, is_same)
                await session.execute(rehash.values(password_hash=better_hash))
            stored = better_hash or found.password_hash
            return await self._sessions.begin(session, found.id, stored, found.roles, user_agent)

    async def log_in_with_code(
        self, database: Database, code: str, verifier: str, user_agent: str | None
    ) -> Tokens:
        """Begin a session with the code of a log-in with a provider. The code is used up.

        Raises:
            InvalidCode: the code is not valid, or has another code challenge.
            AccountDisabled: an administrator has disabled the account.
        """
        account_id = await use_code(database, code, verifier)
        async with database.session() as session:
            account = await session.get(Account, account_id, with_for_update={"read": True})
            if account is None:
                raise errors.InvalidCode("Log in again.")
            return await self._sessions.begin_for(session, account, user_agent)


async def find(connection: AsyncConnection, account_id: uuid.UUID) -> AccountRead:
    """Return an account.

    Raises:
        UnknownAccount: the account was deleted.
    """
    row = (await connection.execute(_FIND, {"id": account_id})).mappings().one_or_none()
    if row is None:
        raise errors.UnknownAccount("The account was deleted.")
    return AccountRead.model_validate(row)
