import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import create_migration_engine
from app.db.libpq import libpq_parameters, libpq_url
from app.db.reset import ResetError, database_name, reset_database
from app.db.schema_version import MigrationError, load_revisions, read_revisions
from app.settings import Settings
from conftest import settings_for
from databases import Databases

TABLES = text("SELECT tablename FROM pg_tables WHERE tablename = '_test_old'")
NAMES = text("SELECT datname FROM pg_database")
NO_SESSION = text("SELECT 0 WHERE CAST(:name AS text) IS NOT NULL")
# A name of the tests of this process with every character that SQL, URLs and formats quote.
STRANGE = f"test_{os.getpid()}_" + "{name} \"a' :b %s /?#ä-B"


def url_with(url: str, **parameters: str) -> str:
    return libpq_url(libpq_parameters(url) | parameters)


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_migration_engine(settings_for(url))
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        yield connection


async def add_table(url: str) -> None:
    """Add a table that no migration creates."""
    async with connect(url) as connection:
        await connection.execute(text("CREATE TABLE _test_old (id bigint)"))


async def has_table(url: str) -> bool:
    async with connect(url) as connection:
        return await connection.scalar(TABLES) is not None


async def names(url: str) -> set[str]:
    async with connect(url) as connection:
        return set(await connection.scalars(NAMES))


@pytest.fixture
async def strange_database(databases: Databases) -> AsyncIterator[str]:
    async with databases.new() as server, connect(server) as connection:
        quoted = connection.dialect.identifier_preparer.quote_identifier(STRANGE)
        await connection.exec_driver_sql(f"CREATE DATABASE {quoted}")
        yield url_with(server, dbname=STRANGE)
        await connection.exec_driver_sql(f"DROP DATABASE {quoted} WITH (FORCE)")


async def test_reset_replaces_a_database_of_any_name_by_a_migrated_one(
    strange_database: str,
) -> None:
    await add_table(strange_database)
    settings = settings_for(strange_database)
    assert database_name(settings) == STRANGE
    await reset_database(settings, force=False)
    assert not await has_table(strange_database)
    async with connect(strange_database) as connection:
        head = load_revisions().head
        assert await read_revisions(connection) == ({head} if head else set())


async def test_reset_of_a_missing_database_creates_it(empty_database: str) -> None:
    name = f"test_{os.getpid()}_{uuid.uuid4().hex}"
    missing = url_with(empty_database, dbname=name)
    await reset_database(settings_for(missing), force=False)
    assert name in await names(empty_database)
    async with connect(empty_database) as connection:
        await connection.exec_driver_sql(f'DROP DATABASE "{name}"')


async def test_reset_of_a_database_in_use_is_refused_unless_forced(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_table(empty_database)
    settings = settings_for(empty_database)
    async with connect(empty_database) as connection:
        await connection.execute(text("SELECT 1"))
        with monkeypatch.context() as patch:
            patch.setattr("app.db.reset.migrate", None)  # refused before
            with pytest.raises(ResetError, match=r"stop `app dev` .* with --force"):
                await reset_database(settings, force=False)
        with monkeypatch.context() as patch:
            patch.setattr("app.db.reset.COUNT_SESSIONS", NO_SESSION)  # the session began later
            with pytest.raises(ResetError, match=r"stop `app dev` .* with --force"):
                await reset_database(settings, force=False)
        assert await has_table(empty_database)
        await reset_database(settings, force=True)
        await connection.invalidate()
    assert not await has_table(empty_database)


async def test_reset_with_a_failing_migration_leaves_the_old_database(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_table(empty_database)
    tried: list[str] = []

    async def fail(settings: Settings) -> None:
        tried.append(database_name(settings))
        raise MigrationError("a migration failed")

    monkeypatch.setattr("app.db.reset.migrate", fail)
    with pytest.raises(MigrationError, match="a migration failed"):
        await reset_database(settings_for(empty_database), force=True)
    assert await has_table(empty_database)
    assert tried
    assert not await names(empty_database) & set(tried)


async def test_reset_by_a_role_that_may_not_create_databases_leaves_the_old_one(
    empty_database: str,
) -> None:
    await add_table(empty_database)
    role = f"test_{os.getpid()}_{uuid.uuid4().hex}"
    async with connect(empty_database) as connection:
        await connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'of-this-test'")
        url = url_with(empty_database, user=role, password="of-this-test")
        try:
            with pytest.raises(ResetError, match="permission denied to create database"):
                await reset_database(settings_for(url), force=True)
        finally:
            await connection.exec_driver_sql(f"DROP ROLE {role}")
    assert await has_table(empty_database)


@pytest.mark.parametrize("environment", ["staging", "production"])
async def test_reset_outside_development_and_tests_is_refused(
    empty_database: str, environment: str
) -> None:
    settings = settings_for(empty_database).model_copy(update={"environment": environment})
    with pytest.raises(ResetError, match=f"ENVIRONMENT is {environment}"):
        await reset_database(settings, force=True)


async def test_reset_through_a_transaction_pooler_is_refused() -> None:
    pooled = settings_for("postgresql://pooler.invalid/app?pgbouncer=true")
    with pytest.raises(ResetError, match="set DATABASE_UNPOOLED_URL"):
        await reset_database(pooled, force=False)


async def test_reset_without_a_server_reports_one_line() -> None:
    settings = settings_for("postgresql://u:hunter2@127.0.0.1:1/x")
    with pytest.raises(ResetError) as caught:
        await reset_database(settings, force=False)
    assert "Connect call failed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
