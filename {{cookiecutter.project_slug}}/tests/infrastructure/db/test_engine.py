import asyncio
from urllib.parse import quote, urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db.engine import create_engine, create_migration_engine
from conftest import settings_for
from postgres_server import Postgres

PASSWORD = "p@ss:w/o#r?d%"


async def test_password_with_special_characters_connects(postgres: Postgres) -> None:
    engine = create_engine(settings_for(postgres.url), pool_size=1)
    async with engine.begin() as connection:
        role = f"CREATE ROLE special LOGIN PASSWORD '{PASSWORD}'"
        await connection.exec_driver_sql(role)
        postgres.require_password("special")
        await connection.execute(text("SELECT pg_reload_conf()"))
    await engine.dispose()
    for password in (PASSWORD, quote(PASSWORD, safe="")):
        url = f"postgres://special:{password}@/postgres?host={postgres.socket_folder}"
        engine = create_engine(settings_for(url), pool_size=1)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT current_user")) == "special"
        await engine.dispose()
    wrong = create_engine(settings_for(url.replace("p%40ss", "pass")), pool_size=1)
    with pytest.raises(DBAPIError, match="password authentication failed"):
        await wrong.connect()


async def test_statement_timeout_is_set_on_the_server(database_url: str) -> None:
    engine = create_engine(
        settings_for(database_url, database_statement_timeout_seconds=7), pool_size=1
    )
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "7s"
    await engine.dispose()


@pytest.mark.parametrize("for_migrations", [False, True])
async def test_server_detects_a_lost_client_within_a_minute(
    database_url: str, *, for_migrations: bool
) -> None:
    """Without a reply, TCP keepalives release its locks. A Unix socket stores the settings only."""
    statement = text("SELECT name, reset_val FROM pg_settings WHERE name LIKE 'tcp%'")
    settings = settings_for(database_url)
    engine = (
        create_migration_engine(settings)
        if for_migrations
        else create_engine(settings, pool_size=1)
    )
    async with engine.connect() as connection:
        seconds = {name: int(value) for name, value in await connection.execute(statement)}
    await engine.dispose()
    probing = seconds["tcp_keepalives_interval"] * seconds["tcp_keepalives_count"]
    assert 0 < seconds["tcp_keepalives_idle"] + probing <= 60
    assert seconds["tcp_user_timeout"] == 60_000


async def test_migrations_have_a_lock_timeout_and_no_statement_timeout(database_url: str) -> None:
    engine = create_migration_engine(settings_for(database_url))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
        assert await connection.scalar(text("SHOW lock_timeout")) == "5s"
    await engine.dispose()


async def test_migrations_ignore_the_statement_timeout_of_the_database(empty_database: str) -> None:
    engine = create_engine(settings_for(empty_database), pool_size=1)
    async with engine.begin() as connection:
        name = await connection.scalar(text("SELECT current_database()"))
        await connection.execute(text(f'ALTER DATABASE "{name}" SET statement_timeout = 1000'))
    await engine.dispose()
    engine = create_migration_engine(settings_for(empty_database))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
    await engine.dispose()


async def test_migrations_use_the_unpooled_url(database_url: str) -> None:
    settings = settings_for(
        "postgresql://pooler.invalid/app?connect_timeout=1", database_unpooled_url=database_url
    )
    engine = create_migration_engine(settings)
    async with engine.connect() as connection:
        name = await connection.scalar(text("SELECT current_database()"))
    await engine.dispose()
    assert name == urlsplit(database_url).path.removeprefix("/")


async def test_engine_behind_a_transaction_pooler_leaves_no_prepared_statement(
    database_url: str,
) -> None:
    pooled = settings_for(database_url, database_unpooled_url=database_url)
    engine = create_engine(pooled, pool_size=1)
    async with engine.connect() as connection:
        for number in range(3):
            await connection.scalar(text("SELECT CAST(:n AS int)"), {"n": number})
        prepared = await connection.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
    await engine.dispose()
    assert prepared == 0


async def test_connection_that_died_while_idle_is_replaced(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.engine.IDLE_SECONDS_BEFORE_PING", -1.0)
    engine = create_engine(settings_for(database_url), pool_size=1)
    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    other = create_engine(settings_for(database_url), pool_size=1)
    async with other.connect() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend({pid})"))
    await other.dispose()
    for _ in range(2):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


async def test_idle_connection_is_tested_by_one_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further statement would add a wait for a frozen server."""
    monkeypatch.setattr("app.db.engine.IDLE_SECONDS_BEFORE_PING", -1.0)
    engine = create_engine(settings_for(database_url), pool_size=1)
    statements: list[str] = []
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        driver.add_query_logger(lambda query: statements.append(query.query))
    statements.clear()
    async with engine.connect():
        await asyncio.sleep(0)  # asyncpg calls its loggers in the next iteration of the event loop
    await engine.dispose()
    assert statements == ["SELECT 1"]
