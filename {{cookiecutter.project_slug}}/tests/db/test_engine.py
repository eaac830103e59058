import asyncio
import ssl
from urllib.parse import quote, urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db.engine import create_engine
from app.db.url import parse_postgres_url
from conftest import settings_for
from processes import own_postgres

PASSWORD = "p@ss:w/o#r?d%"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@db.example.com:5433/app", ("u", "p", "db.example.com", 5433, "app")),
        ("postgresql://u:p@db/app", ("u", "p", "db", None, "app")),
        ("postgresql+asyncpg://u:p@db/app", ("u", "p", "db", None, "app")),
        ("postgresql+psycopg2://u:p@db/app", ("u", "p", "db", None, "app")),
        ("postgresql://db", (None, None, "db", None, None)),
        ("postgresql://u@db/app", ("u", None, "db", None, "app")),
        ("postgresql://u:p@[::1]:5432/app", ("u", "p", "::1", 5432, "app")),
        ("postgresql://u:p@[fd12::2]/app", ("u", "p", "fd12::2", None, "app")),
        (f"postgresql://u:{quote(PASSWORD, safe='')}@db/app", ("u", PASSWORD, "db", None, "app")),
        (f"postgresql://u:{PASSWORD}@db/app", ("u", PASSWORD, "db", None, "app")),
        ("postgresql://u%40corp:p@db/my%20app", ("u@corp", "p", "db", None, "my app")),
        ("  postgresql://u:p@db/app\n", ("u", "p", "db", None, "app")),
        ("postgresql://u:p@db/app?application_name=me@host", ("u", "p", "db", None, "app")),
        ("postgresql://u:p@/app?host=db&port=5433", ("u", "p", "db", 5433, "app")),
        ("postgresql://u:p@%2Fvar%2Frun/app", ("u", "p", None, None, "app")),
    ],
)
def test_urls_of_every_platform_are_understood(
    url: str, expected: tuple[str | None, str | None, str, int | None, str | None]
) -> None:
    given = settings_for(url).database_url
    assert given is not None
    parsed = parse_postgres_url(given.get_secret_value()).url
    assert (parsed.username, parsed.password, parsed.host, parsed.port, parsed.database) == expected


def test_query_parameters_of_libpq_are_translated() -> None:
    target = parse_postgres_url(
        "postgres://u:p@db/app?sslmode=require&connect_timeout=7&application_name=x"
        "&channel_binding=require&target_session_attrs=read-write"
    )
    assert target.connect_args == {
        "ssl": "require",
        "timeout": 7.0,
        "server_settings": {"application_name": "x"},
        "target_session_attrs": "read_write",
    }
    assert not target.is_pooled


def test_verifying_modes_build_a_context() -> None:
    full = parse_postgres_url("postgres://u:p@db/app?sslmode=verify-full").connect_args["ssl"]
    assert isinstance(full, ssl.SSLContext)
    assert full.check_hostname
    ca_only = parse_postgres_url("postgres://u:p@db/app?sslmode=verify-ca").connect_args["ssl"]
    assert not ca_only.check_hostname
    system = parse_postgres_url("postgres://u:p@db/app?sslmode=verify-full&sslrootcert=system")
    assert system.connect_args["ssl"].check_hostname
    assert parse_postgres_url("postgres://u:p@db/app?ssl=true").connect_args["ssl"] == "require"


def test_no_limit_is_said_by_nought() -> None:
    target = parse_postgres_url("postgres://u:p@db/app?connect_timeout=0")
    assert target.connect_args["timeout"] is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://one,two/app", "not of the form"),
        ("http://db/app", "not of the form"),
        ("postgresql://u:hunter2@db/app?sslmode=always", "sslmode=always"),
        ("postgresql://u:hunter2@db/app?colour=red", "'colour'"),
        (
            "postgresql://u:hunter2@db/app?connect_timeout=soon",
            "DATABASE_URL has a connect_timeout",
        ),
        ("postgresql://u:p@db/app?sslmode=verify-full&sslrootcert=/no/such", "cannot be read"),
    ],
)
def test_what_is_not_understood_is_refused_without_repeating_the_password(
    url: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_postgres_url(url)
    assert "hunter2" not in str(caught.value)


async def test_an_awkward_password_opens_a_real_server() -> None:
    with own_postgres() as server:
        engine = create_engine(settings_for(server.url), pool_size=1)
        async with engine.begin() as connection:
            role = f"CREATE ROLE awkward LOGIN PASSWORD '{PASSWORD}'"
            await connection.exec_driver_sql(role)
            server.require_password("awkward")
            await connection.execute(text("SELECT pg_reload_conf()"))
        await engine.dispose()
        for written in (PASSWORD, quote(PASSWORD, safe="")):
            url = f"postgres://awkward:{written}@/postgres?host={server.socket_folder}"
            engine = create_engine(settings_for(url), pool_size=1)
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT current_user")) == "awkward"
            await engine.dispose()
        wrong = create_engine(settings_for(url.replace("p%40ss", "pass")), pool_size=1)
        with pytest.raises(DBAPIError, match="password authentication failed"):
            await wrong.connect()


async def test_limits_reach_the_server(database_url: str) -> None:
    engine = create_engine(
        settings_for(database_url, database_statement_timeout_seconds=7), pool_size=1
    )
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "7s"
    await engine.dispose()


@pytest.mark.parametrize("for_migrations", [False, True])
async def test_the_locks_of_a_machine_that_is_gone_are_given_back_within_a_minute(
    database_url: str, *, for_migrations: bool
) -> None:
    """Where no packet comes back. A socket has no such settings, but knows what it was told."""
    told = text("SELECT name, reset_val FROM pg_settings WHERE name LIKE 'tcp%'")
    engine = create_engine(settings_for(database_url), pool_size=1, for_migrations=for_migrations)
    async with engine.connect() as connection:
        seconds = {name: int(value) for name, value in await connection.execute(told)}
    await engine.dispose()
    pauses = seconds["tcp_keepalives_interval"] * seconds["tcp_keepalives_count"]
    assert 0 < seconds["tcp_keepalives_idle"] + pauses <= 60
    assert seconds["tcp_user_timeout"] == 60_000


async def test_migrations_have_no_statement_timeout_but_a_lock_timeout(database_url: str) -> None:
    engine = create_engine(settings_for(database_url), pool_size=1, for_migrations=True)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
        assert await connection.scalar(text("SHOW lock_timeout")) == "5s"
    await engine.dispose()


async def test_migrations_ignore_the_statement_timeout_of_the_role(empty_database: str) -> None:
    engine = create_engine(settings_for(empty_database), pool_size=1)
    async with engine.begin() as connection:
        name = await connection.scalar(text("SELECT current_database()"))
        await connection.execute(text(f'ALTER DATABASE "{name}" SET statement_timeout = 1000'))
    await engine.dispose()
    engine = create_engine(settings_for(empty_database), pool_size=1, for_migrations=True)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
    await engine.dispose()


async def test_migrations_take_the_direct_url(database_url: str) -> None:
    settings = settings_for(
        "postgresql://pooler.invalid/app?connect_timeout=1", database_unpooled_url=database_url
    )
    engine = create_engine(settings, pool_size=1, for_migrations=True)
    async with engine.connect() as connection:
        name = await connection.scalar(text("SELECT current_database()"))
    await engine.dispose()
    assert name == urlsplit(database_url).path.removeprefix("/")


async def test_behind_a_transaction_pooler_no_prepared_statement_is_left_behind(
    database_url: str,
) -> None:
    pooled = settings_for(database_url, database_unpooled_url=database_url)
    engine = create_engine(pooled, pool_size=1)
    async with engine.connect() as connection:
        for number in range(3):
            await connection.scalar(text("SELECT CAST(:n AS int)"), {"n": number})
        left = await connection.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
        assert await connection.scalar(text("SHOW statement_timeout")) == "0"
    await engine.dispose()
    assert left == 0


async def test_a_connection_that_died_while_idle_never_reaches_a_caller(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.engine.IDLE_SECONDS_BEFORE_PING", -1.0)
    engine = create_engine(settings_for(database_url), pool_size=1)
    async with engine.connect() as connection:
        killed = await connection.scalar(text("SELECT pg_backend_pid()"))
    killer = create_engine(settings_for(database_url), pool_size=1)
    async with killer.connect() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend({killed})"))
    await killer.dispose()
    for _ in range(2):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


async def test_an_idle_connection_is_tested_by_one_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a frozen server, every further one would be waited for."""
    monkeypatch.setattr("app.db.engine.IDLE_SECONDS_BEFORE_PING", -1.0)
    engine = create_engine(settings_for(database_url), pool_size=1)
    seen: list[str] = []
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        driver.add_query_logger(lambda query: seen.append(query.query))
    seen.clear()
    async with engine.connect():
        await asyncio.sleep(0)  # the driver tells its loggers a turn of the loop later
    await engine.dispose()
    assert seen == ["SELECT 1"]
