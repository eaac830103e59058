"""The acts of administrators. Each is a row of `administrative_acts` and a line of the log."""

import uuid
from collections.abc import Sequence

from sqlalchemy import Update, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.roles import ROLES, permissions_of
from app.db.pagination import Keyset, fetch_page
from app.features.accounts import errors
from app.features.accounts.acts import record
from app.features.accounts.models import Account, Act
from app.features.accounts.schemas import AccountPage, AccountQuery, AdministeredAccount
from app.features.accounts.sessions import end_all


async def find_page(session: AsyncSession, query: AccountQuery) -> AccountPage:
    """Return one page of all accounts.

    Raises:
        InvalidCursor: the cursor is malformed, or belongs to another order.
    """
    keyset = Keyset(query.sort, Account.email, Account.id)
    found, next_cursor = await fetch_page(
        session, select(Account), keyset, query.cursor, query.limit
    )
    items = [AdministeredAccount.model_validate(account) for account in found]
    return AccountPage(items=items, next_cursor=next_cursor)


async def find_with_roles(session: AsyncSession) -> Sequence[Account]:
    """Return the accounts that have a role."""
    found = select(Account).where(func.cardinality(Account.roles) > 0).order_by(Account.email)
    return (await session.scalars(found)).all()


async def find_id(session: AsyncSession, email: str) -> uuid.UUID:
    """Return the id of the account with an address.

    Raises:
        AccountNotFound: no account has it.
    """
    found = select(Account.id).where(Account.email == email.strip().lower())
    account_id = await session.scalar(found)
    if account_id is None:
        raise errors.AccountNotFound(f"No account has the address {email}.")
    return account_id


async def disable(
    session: AsyncSession, actor_id: uuid.UUID | None, target_id: uuid.UUID
) -> AdministeredAccount:
    """End the sessions of an account, and refuse its log-ins and API keys.

    Access tokens that were issued before stay valid until they expire.

    Raises:
        RoleRevoked: the actor was disabled or deleted, or has lost the permission.
        AccountNotFound: no account has the id.
    """
    await _check_actor(session, actor_id)
    disabled_at = func.coalesce(Account.disabled_at, func.now())
    account = await _change(session, target_id, update(Account).values(disabled_at=disabled_at))
    await end_all(session, target_id)
    record(session, "administrative act", actor_id, Act.DISABLE, target_id)
    return account


async def enable(
    session: AsyncSession, actor_id: uuid.UUID | None, target_id: uuid.UUID
) -> AdministeredAccount:
    """Accept the log-ins and API keys of an account again.

    Raises:
        RoleRevoked: the actor was disabled or deleted, or has lost the permission.
        AccountNotFound: no account has the id.
    """
    await _check_actor(session, actor_id)
    account = await _change(session, target_id, update(Account).values(disabled_at=None))
    record(session, "administrative act", actor_id, Act.ENABLE, target_id)
    return account


async def grant(
    session: AsyncSession, actor_id: uuid.UUID | None, target_id: uuid.UUID, role: str
) -> AdministeredAccount:
    """Give a role to an account. Its next refresh has the permissions.

    Raises:
        UnknownRole: `app/auth/roles.py` does not have the role.
        AccountNotFound: no account has the id.
    """
    if role not in ROLES:
        raise errors.UnknownRole(f"There is no role {role}: use one of {', '.join(ROLES)}.")
    roles = func.array_append(func.array_remove(Account.roles, role), role)
    account = await _change(session, target_id, update(Account).values(roles=roles))
    record(session, "administrative act", actor_id, Act.GRANT, target_id, role=role)
    return account


async def revoke(
    session: AsyncSession, actor_id: uuid.UUID | None, target_id: uuid.UUID, role: str
) -> AdministeredAccount:
    """Take a role from an account. Its API keys lose the permissions at once.

    Raises:
        AccountNotFound: no account has the id.
    """
    roles = func.array_remove(Account.roles, role)
    account = await _change(session, target_id, update(Account).values(roles=roles))
    record(session, "administrative act", actor_id, Act.REVOKE, target_id, role=role)
    return account


async def _check_actor(session: AsyncSession, actor_id: uuid.UUID | None) -> None:
    """Check an administrator again: an access token outlives its role and its account.

    Without this check a disabled administrator could enable its own account.
    """
    if actor_id is None:
        return  # the command line
    found = select(Account.roles).where(Account.id == actor_id, Account.disabled_at.is_(None))
    roles = await session.scalar(found)
    if "accounts:write" not in permissions_of(roles or ()):
        raise errors.RoleRevoked("Refresh the access token: its account has lost the permission.")


async def _change(
    session: AsyncSession, target_id: uuid.UUID, change: Update
) -> AdministeredAccount:
    changed = change.where(Account.id == target_id).returning(Account)
    account = await session.scalar(changed)
    if account is None:
        raise errors.AccountNotFound("No account has this id.")
    return AdministeredAccount.model_validate(account)
