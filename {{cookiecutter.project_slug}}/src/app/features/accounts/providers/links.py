"""The rules that connect the users of providers with accounts.

Only an address that the provider has verified connects them, and only at the first log-in. Later
ones find the account by issuer and subject. An attacker may have registered the address of a user
before (Sudhodanan and Paverd, "Pre-hijacked accounts", 2022). Such an account has an unconfirmed
address, so the first log-in takes it over: its password, sessions, links and API keys end.
"""

import uuid
from collections.abc import Collection, Sequence

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import bindparam, delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.features.accounts import errors, mails
from app.features.accounts.acts import record
from app.features.accounts.link_tokens import delete_tokens
from app.features.accounts.models import Account, Act, ApiKey, ProviderLink
from app.features.accounts.providers.definition import ProviderUser
from app.features.accounts.schemas import Email, ProviderLinkRead
from app.features.accounts.sessions import end_all
from app.mail.outbox import Outbox

_EMAIL = TypeAdapter[str](Email)
_FIND = (
    select(Account, ProviderLink)
    .join(ProviderLink, ProviderLink.account_id == Account.id)
    .where(ProviderLink.issuer == bindparam("issuer"))
    .where(ProviderLink.subject == bindparam("subject"))
    .with_for_update(read=True, of=Account)
)
_DELETE_OTHERS = delete(ProviderLink).where(
    ProviderLink.account_id == bindparam("account"), ProviderLink.email != bindparam("address")
)
_LIST = (
    select(*ProviderLink.__table__.columns)
    .where(ProviderLink.account_id == bindparam("account"))
    .order_by(ProviderLink.created_at)
)


class Links:
    """The rules that need mails."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def find_account(
        self, session: AsyncSession, provider: str, user: ProviderUser, languages: str | None
    ) -> Account:
        """Return the account of a user, locked. The first log-in links or creates it.

        Raises:
            AccountDisabled: an administrator has disabled the account.
            EmailNotVerified: the user is unknown, and has no verified address.
            OtherUserLinked: another user of the provider logs in to the account of the address.
        """
        values = {"issuer": user.issuer, "subject": user.subject}
        if found := (await session.execute(_FIND, values)).one_or_none():
            account, link = found
            _refuse_disabled(account)
            link.last_used_at = func.now()
            return account
        email = _verified_address(user)
        account, is_new = await _upsert(session, email)
        _refuse_disabled(account)
        is_confirmed = account.email_verified_at is not None
        if not is_confirmed:
            await _take_over(session, account, provider)
        is_added = await self._link(session, account, provider, user)
        if is_added and not is_new:
            notice = mails.provider_linked if is_confirmed else mails.password_ended
            values = {"account_id": str(account.id), "provider": provider}
            await self._outbox.send(session, notice, languages=languages, **values)
        return account

    async def _link(
        self, session: AsyncSession, account: Account, provider: str, user: ProviderUser
    ) -> bool:
        """Link a user, and return whether no log-in at the same time has done so."""
        new = insert(ProviderLink).values(
            account_id=account.id,
            provider=provider,
            issuer=user.issuer,
            subject=user.subject,
            email=account.email,
        )
        added = new.on_conflict_do_nothing().returning(ProviderLink.id)
        if await session.scalar(added):
            record(session, "provider linked", account.id, Act.LINK, account.id, provider=provider)
            return True
        is_own = exists().where(
            ProviderLink.account_id == account.id,
            ProviderLink.issuer == user.issuer,
            ProviderLink.subject == user.subject,
        )
        if not await session.scalar(select(is_own)):
            raise errors.OtherUserLinked(
                "Another user of the provider logs in to the account with this address. Log in in "
                "another way, and remove that link."
            )
        return False


async def find_links(
    connection: AsyncConnection, account_id: uuid.UUID
) -> Sequence[ProviderLinkRead]:
    """Return the links of an account, the oldest first."""
    rows = (await connection.execute(_LIST, {"account": account_id})).mappings()
    return [ProviderLinkRead.model_validate(row) for row in rows]


async def unlink_others(session: AsyncSession, account_id: uuid.UUID, email: str) -> None:
    """Remove the links whose users had another address at the provider.

    The owner of the address replaces a forgotten password. Another person may have linked a user
    before the account got this address.
    """
    await session.execute(_DELETE_OTHERS, {"account": account_id, "address": email})


async def unlink(
    session: AsyncSession, account_id: uuid.UUID, link_id: uuid.UUID, names: Collection[str]
) -> None:
    """Remove a link. Sessions that it has begun continue.

    Args:
        session: the transaction.
        account_id: the account.
        link_id: the link.
        names: of the providers that log users in. Links to others are no way to log in.

    Raises:
        UnknownAccount: the account was deleted or disabled.
        ProviderLinkNotFound: the account has no such link.
        OnlyWayToLogIn: the account has no password and no other link.
    """
    account = await session.get(Account, account_id, with_for_update=True)
    if account is None or account.disabled_at is not None:
        raise errors.UnknownAccount("The account was deleted or disabled.")
    found = select(ProviderLink).where(ProviderLink.account_id == account_id)
    links = {link.id: link for link in await session.scalars(found)}
    removed = links.pop(link_id, None)
    if removed is None:
        raise errors.ProviderLinkNotFound("The account has no such link.")
    if not account.has_password and not any(link.provider in names for link in links.values()):
        raise errors.OnlyWayToLogIn(
            "The account has no password: set one with a link for a forgotten password first."
        )
    await session.delete(removed)
    provider = removed.provider
    record(session, "provider unlinked", account_id, Act.UNLINK, account_id, provider=provider)


def _verified_address(user: ProviderUser) -> str:
    if user.email is None or not user.is_verified:
        raise errors.EmailNotVerified("The provider has not verified the e-mail address.")
    try:
        return _EMAIL.validate_python(user.email)
    except ValidationError as error:
        message = "The e-mail address at the provider is none that this service accepts."
        raise errors.EmailNotVerified(message) from error


def _refuse_disabled(account: Account) -> None:
    if account.disabled_at is not None:
        raise errors.AccountDisabled("An administrator has disabled the account.")


async def _upsert(session: AsyncSession, email: str) -> tuple[Account, bool]:
    """Return the account with an address, locked, and whether it is new.

    One statement, so that an account cannot appear or disappear in between.
    """
    new_id = uuid.uuid4()
    new = insert(Account).values(id=new_id, email=email, email_verified_at=func.now())
    upsert = new.on_conflict_do_update(
        index_elements=[Account.email], set_={"email": new.excluded.email}
    )
    account = (await session.scalars(upsert.returning(Account))).one()
    return account, account.id == new_id


async def _take_over(session: AsyncSession, account: Account, provider: str) -> None:
    """Give an account to the owner of its address, and end all that another may have made."""
    account.password_hash = None
    account.email_verified_at = func.now()
    await session.flush()
    await delete_tokens(session, account.id)
    await end_all(session, account.id)
    await session.execute(delete(ApiKey).where(ApiKey.account_id == account.id))
    await session.execute(delete(ProviderLink).where(ProviderLink.account_id == account.id))
    record(session, "account taken over", account.id, Act.TAKE_OVER, account.id, provider=provider)
