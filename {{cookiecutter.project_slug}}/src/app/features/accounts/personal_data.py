"""The data of an account, in every package.

A package with such data has a module `personal_data.py` with two functions:
`async def export_personal_data(connection, account_id)` returns them as JSON values, and
`async def delete_personal_data(session, account_id)` deletes them.
"""

import uuid
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.discovery import find_modules
from app.features.accounts.api_keys import find_all as find_keys
from app.features.accounts.providers.links import find_links
from app.features.accounts.service import find
from app.features.accounts.sessions import find_sessions


async def export_all(connection: AsyncConnection, account_id: uuid.UUID) -> dict[str, Any]:
    """Return the data of an account by the name of their package.

    Raises:
        UnknownAccount: the account was deleted.
    """
    account = await find(connection, account_id)
    sessions = await find_sessions(connection, account_id)
    keys = await find_keys(connection, account_id)
    links = await find_links(connection, account_id)
    own = {
        "account": account.model_dump(mode="json"),
        "sessions": [session.model_dump(mode="json") for session in sessions],
        "providers": [link.model_dump(mode="json") for link in links],
        "api_keys": [key.model_dump(mode="json") for key in keys],
    }
    others = {
        str(module.__package__).rpartition(".")[2]: await module.export_personal_data(
            connection, account_id
        )
        for module in _other_modules()
    }
    return own | others


async def delete_personal_data(session: AsyncSession, account_id: uuid.UUID) -> None:
    """Delete the data of an account in other packages. Foreign keys delete those of this one."""
    for module in _other_modules():
        await module.delete_personal_data(session, account_id)


def _other_modules() -> Iterator[ModuleType]:
    return (module for module in find_modules("personal_data") if module.__name__ != __name__)
