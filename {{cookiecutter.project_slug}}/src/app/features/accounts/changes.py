"""Changes of an account: its address, its password, and its end.

Each change asks for the password, or for the token of a link. An account without a password needs
an access token of a recent log-in.
"""

import uuid

from sqlalchemy import bindparam, delete, exc, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.db.session import Database
from app.features.accounts import attempts, errors, mails
from app.features.accounts.link_tokens import delete_tokens, use_token
from app.features.accounts.models import Account, LoginSession, Purpose
from app.features.accounts.passwords import Passwords
from app.features.accounts.personal_data import delete_personal_data
from app.features.accounts.providers.links import unlink_others
from app.features.accounts.recent_login import MAX_AGE, RecentLoginRequired
from app.features.accounts.schemas import MAX_PASSWORD_LENGTH, Tokens
from app.features.accounts.sessions import Sessions, end_all
from app.mail.outbox import Outbox

# A session that has ended is not recent, although its access token is still valid.
_IS_RECENT = exists().where(
    LoginSession.id == bindparam("session_id", type_=LoginSession.id.type),
    LoginSession.account_id == Account.id,
    LoginSession.created_at > func.now() - MAX_AGE,
)
_HASH = select(Account.password_hash, _IS_RECENT.label("is_recent")).where(
    Account.id == bindparam("account_id"), Account.disabled_at.is_(None)
)
_ADDRESS = select(Account.email).where(Account.id == bindparam("account_id"))
_VERIFY = (
    update(Account)
    .where(Account.id == bindparam("account_id"), Account.email == bindparam("address"))
    .values(email_verified_at=func.now())
    .returning(Account.id)
)
OTHER_ADDRESS = "The account has another address now."


class Changes:
    """The rules that need passwords, sessions or mails."""

    def __init__(self, passwords: Passwords, sessions: Sessions, outbox: Outbox) -> None:
        self._passwords = passwords
        self._sessions = sessions
        self._outbox = outbox

    async def send_verification(
        self, session: AsyncSession, account_id: uuid.UUID, languages: str | None
    ) -> None:
        """Send a link that confirms the address, unless it is confirmed.

        Raises:
            UnknownAccount: the account was deleted.
            TooManyAttempts: the address has got many mails.
        """
        address = await session.scalar(_ADDRESS, {"account_id": account_id})
        if address is None:
            raise errors.UnknownAccount("The account was deleted.")
        await attempts.count(session, attempts.MAIL.of(address))
        await self._outbox.send(
            session, mails.verify_email, languages=languages, account_id=str(account_id)
        )

    async def send_password_reset(
        self, session: AsyncSession, email: str, languages: str | None
    ) -> None:
        """Send a link for a new password, if an account has the address.

        The account is looked up when the mail is sent. So the response and its time are the same
        for every address.

        Raises:
            TooManyAttempts: the address has got many mails.
        """
        await attempts.count(session, attempts.RESET.of(email))
        await self._outbox.send(session, mails.reset_password, languages=languages, email=email)

    async def reset_password(self, database: Database, token: str, password: str) -> None:
        """Set a new password with the token of a link, and end all sessions.

        The mail has arrived, so the address is confirmed. Links to users of providers who had
        another address end as well.

        Raises:
            InvalidLink: the token is unknown, expired, or was used before, or the account has
                another address now.
        """
        password_hash = await self._passwords.hash(password)
        async with database.session() as session:
            account_id, email = await use_token(session, Purpose.RESET_PASSWORD, token)
            # Before the lock of the account, because a log-in locks rows in this order.
            await attempts.clear(session, attempts.ACCOUNT.of(email))
            changed = update(Account).where(Account.id == account_id, Account.email == email)
            verified_at = func.coalesce(Account.email_verified_at, func.now())
            changed = changed.values(password_hash=password_hash, email_verified_at=verified_at)
            if await session.scalar(changed.returning(Account.id)) is None:
                raise errors.InvalidLink(OTHER_ADDRESS)
            await delete_tokens(session, account_id)
            await unlink_others(session, account_id, email)
            await end_all(session, account_id)

    async def change_password(
        self,
        database: Database,
        owner: Identity,
        current: str | None,
        new: str,
        user_agent: str | None,
    ) -> Tokens:
        """Set a new password, end all sessions, and begin a new one.

        Raises:
            TooManyAttempts: the account has no attempt left.
            WrongPassword: the current password is wrong.
            RecentLoginRequired: the account has no password, and the log-in is old.
            UnknownAccount: the account was deleted or disabled.
        """
        account_id = owner.account_id
        checked = await self._check_owner(database, owner, current)
        password_hash = await self._passwords.hash(new)
        async with database.session() as session:
            changed = update(Account).where(
                Account.id == account_id, Account.password_hash.is_not_distinct_from(checked)
            )
            changed = changed.values(password_hash=password_hash)
            roles = await session.scalar(changed.returning(Account.roles))
            if roles is None:  # meanwhile another request has changed the password
                raise errors.WrongPassword("The current password is wrong.")
            await delete_tokens(session, account_id)
            await end_all(session, account_id)
            return await self._sessions.begin(session, account_id, password_hash, roles, user_agent)

    async def send_email_change(
        self,
        database: Database,
        owner: Identity,
        password: str | None,
        email: str,
        languages: str | None,
    ) -> None:
        """Send a link to a new address that confirms it.

        Raises:
            TooManyAttempts: the account has no attempt left.
            WrongPassword: the password is wrong.
            RecentLoginRequired: the account has no password, and the log-in is old.
            UnknownAccount: the account was deleted or disabled.
        """
        checked = await self._check_owner(database, owner, password)
        arguments = {"account_id": str(owner.account_id), "email": email}
        arguments["password_digest"] = mails.digest_of(checked)
        async with database.session() as session:
            await attempts.count(session, attempts.MAIL.of(email))
            await self._outbox.send(session, mails.change_email, languages=languages, **arguments)

    async def change_email(self, session: AsyncSession, token: str, languages: str | None) -> None:
        """Use the new address of a link, and notify the old one.

        Raises:
            InvalidLink: the token is unknown, expired, or was used before.
            DuplicateAccount: another account has the address now.
        """
        account_id, email = await use_token(session, Purpose.CHANGE_EMAIL, token)
        account = await session.get_one(Account, account_id, with_for_update=True)
        old_email = account.email
        account.email, account.email_verified_at = email, func.now()
        try:
            await session.flush()
        except exc.IntegrityError as error:
            message = "There is an account with this e-mail address."
            raise errors.DuplicateAccount(message) from error
        await delete_tokens(session, account_id)  # those that the old address has
        await self._outbox.send(
            session, mails.email_changed, languages=languages, old_email=old_email
        )

    async def delete_account(
        self, database: Database, owner: Identity, password: str | None
    ) -> None:
        """Delete an account and all that belongs to it.

        Raises:
            TooManyAttempts: the account has no attempt left.
            WrongPassword: the password is wrong.
            RecentLoginRequired: the account has no password, and the log-in is old.
            UnknownAccount: the account was deleted or disabled.
        """
        await self._check_owner(database, owner, password)
        async with database.session() as session:
            await delete_personal_data(session, owner.account_id)
            await session.execute(delete(Account).where(Account.id == owner.account_id))

    async def _check_owner(
        self, database: Database, owner: Identity, password: str | None
    ) -> str | None:
        """Compare a password with that of an account, and return its hash.

        No connection is held meanwhile. Without a password the log-in must be recent.
        """
        subject = attempts.PASSWORD.of(owner.account_id)
        values = {"account_id": owner.account_id, "session_id": owner.session_id}
        async with database.read_connection() as connection:
            found = (await connection.execute(_HASH, values)).one_or_none()
            if found is None:
                raise errors.UnknownAccount("The account was deleted or disabled.")
            stored: str | None = found.password_hash
            if stored is None:
                if not found.is_recent:
                    raise RecentLoginRequired
                return None
            if password is None:
                raise errors.WrongPassword("The current password is missing.")
            await attempts.count(connection, subject)
        is_right, _ = await self._passwords.verify(password[: MAX_PASSWORD_LENGTH + 1], stored)
        if not is_right:
            raise errors.WrongPassword("The current password is wrong.")
        async with database.read_connection() as connection:
            await attempts.clear(connection, subject)
        return stored


async def verify_email(session: AsyncSession, token: str) -> None:
    """Confirm the address that a link was sent to.

    Raises:
        InvalidLink: the token is unknown, expired, or was used before, or the account has another
            address now.
    """
    account_id, email = await use_token(session, Purpose.VERIFY_EMAIL, token)
    values = {"account_id": account_id, "address": email}
    if (await session.execute(_VERIFY, values)).one_or_none() is None:
        raise errors.InvalidLink(OTHER_ADDRESS)
