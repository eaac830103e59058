"""The command `app accounts`."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import click

from app.command_settings import load_command_settings

EMAIL, ROLE = click.argument("email"), click.argument("role")
Change = Callable[[Any, uuid.UUID], Awaitable[Any]]


@click.group()
def accounts() -> None:
    """Grant roles to accounts, and disable accounts."""


@accounts.command()
@EMAIL
@ROLE
def grant(email: str, role: str) -> None:
    """Give a role to an account. Its next log-in or refresh has the permissions."""
    from app.features.accounts.administration import grant

    _change(email, lambda session, account_id: grant(session, None, account_id, role))


@accounts.command()
@EMAIL
@ROLE
def revoke(email: str, role: str) -> None:
    """Take a role from an account. Access tokens have it until they expire."""
    from app.features.accounts.administration import revoke

    _change(email, lambda session, account_id: revoke(session, None, account_id, role))


@accounts.command()
@EMAIL
def disable(email: str) -> None:
    """End the sessions of an account, and refuse its log-ins and API keys."""
    from app.features.accounts.administration import disable

    _change(email, lambda session, account_id: disable(session, None, account_id))


@accounts.command()
@EMAIL
def enable(email: str) -> None:
    """Accept the log-ins and API keys of an account again."""
    from app.features.accounts.administration import enable

    _change(email, lambda session, account_id: enable(session, None, account_id))


@accounts.command(name="list")
def list_accounts() -> None:
    """Print the accounts that have a role."""
    from app.features.accounts.administration import find_with_roles

    for account in _run(find_with_roles):
        _print(account)


def _change(email: str, change: Change) -> None:
    from app.features.accounts.administration import find_id

    async def run(session: Any) -> Any:
        return await change(session, await find_id(session, email))

    _print(_run(run))


def _print(account: Any) -> None:
    state = "disabled" if account.disabled_at else "enabled"
    click.echo(f"{account.id}  {state:<8}  {account.email}  {','.join(account.roles) or '-'}")


def _run(function: Callable[[Any], Awaitable[Any]]) -> Any:
    from app.db.session import open_database
    from app.errors import ServiceError

    async def run() -> Any:
        with load_command_settings() as settings:
            async with open_database(settings) as database, database.session() as session:
                return await function(session)

    try:
        return asyncio.run(run())
    except ServiceError as error:
        raise click.ClickException(str(error)) from error
