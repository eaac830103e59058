"""The commands `app accounts`."""

import asyncio

from sqlalchemy import select

from app.db.session import open_database
from app.features.accounts.models import Account, AdministrativeAct
from conftest import settings_for
from processes import Finished, environment, run

EMAIL = "grace@navy.example"


async def accounts(database_url: str, *arguments: str) -> Finished:
    env = environment(database_url)
    return await asyncio.to_thread(run, ["app", "accounts", *arguments], env)


async def test_roles_are_granted_listed_and_revoked_and_accounts_disabled(
    migrated_database: str,
) -> None:
    async with open_database(settings_for(migrated_database)) as database:
        async with database.session() as session:
            session.add(Account(email=EMAIL, password_hash="a hash"))
        granted = await accounts(migrated_database, "grant", "Grace@navy.example", "admin")
        assert granted.returncode == 0, granted.stderr
        listed = await accounts(migrated_database, "list")
        assert listed.stdout.split()[1:] == ["enabled", EMAIL, "admin"]
        for command, expected in (("disable", "disabled"), ("enable", "enabled")):
            changed = await accounts(migrated_database, command, EMAIL)
            assert expected in changed.stdout
        revoked = await accounts(migrated_database, "revoke", EMAIL, "admin")
        assert revoked.returncode == 0, revoked.stderr
        assert (await accounts(migrated_database, "list")).stdout == ""
        async with database.read_session() as session:
            acts = (await session.scalars(select(AdministrativeAct).order_by("id"))).all()
    assert [act.act.value for act in acts] == ["grant", "disable", "enable", "revoke"]
    assert {act.actor_id for act in acts} == {None}


async def test_wrong_address_or_role_is_one_line_with_the_reason(migrated_database: str) -> None:
    unknown = await accounts(migrated_database, "grant", EMAIL, "admin")
    assert (unknown.returncode, unknown.stderr) == (
        1,
        f"Error: No account has the address {EMAIL}.\n",
    )
    settings = settings_for(migrated_database)
    async with open_database(settings) as database, database.session() as session:
        session.add(Account(email=EMAIL, password_hash="a hash"))
    wrong = await accounts(migrated_database, "grant", EMAIL, "king")
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "Error: There is no role king: use one of admin.\n",
    )
