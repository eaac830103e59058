"""`scripts/startup.sh` as a platform runs it: early, at once, and with bad migrations."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.migrate import LOCK_KEY
from app.db.session import open_database
from conftest import settings_for
from postgres_server import Postgres
from processes import (
    HANG_SECONDS,
    MIGRATE_AND_SERVE,
    STARTUP,
    Service,
    add_migration,
    environment,
    get,
    wait_until,
)
from sql import fetch

REPLICAS = 8
CONCURRENTLY = """
from alembic import op


def upgrade() -> None:
    op.execute("CREATE TABLE _test_words (word text)")
    op.execute("INSERT INTO _test_words SELECT md5(n::text) FROM generate_series(1, 20000) AS n")
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix__test_words_word")
        op.execute("CREATE INDEX CONCURRENTLY ix__test_words_word ON _test_words (word)")


def downgrade() -> None:
    op.execute("DROP TABLE _test_words")
"""
FAILING = """
from alembic import op


def upgrade() -> None:
    op.execute("CREATE TABLE _test_half_done (word text)")
    op.execute("ALTER TABLE _test_nowhere ADD COLUMN word text")


def downgrade() -> None:
    pass
"""

SLOW = """
from alembic import op


def upgrade() -> None:
    op.execute("CREATE TABLE _test_half_done (word text)")
    op.execute("SELECT pg_sleep(600)")


def downgrade() -> None:
    pass
"""


async def query(url: str, statement: str) -> list[object]:
    async with open_database(settings_for(url)) as database:
        return [next(iter(row.values())) for row in await fetch(database, text(statement))]


@pytest.fixture
def replicas() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def test_startup_of_8_replicas_at_once_migrates_once_and_all_serve(
    empty_database: str, source: Path, replicas: ExitStack
) -> None:
    env = environment(
        empty_database,
        **add_migration(source, CONCURRENTLY),
        MIGRATION_LOCK_TIMEOUT_SECONDS="0.3",
    )
    services = [replicas.enter_context(Service(MIGRATE_AND_SERVE, env)) for _ in range(REPLICAS)]
    async with (
        open_database(settings_for(empty_database)) as database,
        database.session() as old,
    ):
        # CONCURRENTLY has to wait for this open snapshot.
        await old.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        await old.execute(text("SELECT 1"))
        await asyncio.to_thread(
            wait_until, lambda: any("migrating" in service.messages() for service in services)
        )
        await asyncio.sleep(1)
    for service in services:
        await asyncio.to_thread(service.wait_until_ready)
    assert [message for s in services for message in s.messages()].count("migrated") == 1
    for service in services:
        assert service.stderr == ""
        assert not [line for line in service.lines if line["level"] == "error"]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix__test_words_word'::regclass"
    assert await query(empty_database, valid) == [True]


async def test_startup_at_the_last_migration_takes_no_lock(
    database_url: str, replicas: ExitStack
) -> None:
    async with open_database(settings_for(database_url)) as database, database.probe() as lock:
        await lock.execute(text(f"SELECT pg_advisory_lock({LOCK_KEY})"))
        service = replicas.enter_context(Service(MIGRATE_AND_SERVE, environment(database_url)))
        await asyncio.to_thread(service.wait_until_ready)


async def test_startup_before_its_database_waits_for_it(
    postgres: Postgres, replicas: ExitStack
) -> None:
    postgres.stop()
    service = replicas.enter_context(Service(STARTUP, environment(postgres.url)))
    waiting = "waiting for the database"
    await asyncio.to_thread(wait_until, lambda: waiting in service.messages(), doing=service)
    postgres.start()
    await asyncio.to_thread(service.wait_until_ready)


async def test_startup_with_a_failing_migration_exits_and_the_running_version_serves(
    empty_database: str, source: Path, replicas: ExitStack
) -> None:
    running = replicas.enter_context(Service(MIGRATE_AND_SERVE, environment(empty_database)))
    url = await asyncio.to_thread(running.wait_until_ready)
    env = environment(empty_database, **add_migration(source, FAILING))
    new = replicas.enter_context(Service(MIGRATE_AND_SERVE, env))
    assert await asyncio.to_thread(new.wait) == 1
    (reason,) = [line for line in new.lines if line["level"] == "error"]
    assert reason["message"] == "not migrated"
    assert 'relation "_test_nowhere" does not exist' in reason["reason"]
    assert "listening" not in new.messages()
    assert await query(empty_database, "SELECT to_regclass('_test_half_done')") == [None]
    assert get(f"{url}/health/ready").status_code == 200


async def test_sigterm_during_the_wait_for_a_database_ends_it(replicas: ExitStack) -> None:
    service = replicas.enter_context(
        Service(STARTUP, environment("postgresql://u:p@127.0.0.1:1/x"))
    )
    wait_until(lambda: "waiting for the database" in service.messages(), doing=service)
    service.process.send_signal(signal.SIGTERM)
    assert service.wait() == 128 + signal.SIGTERM
    assert service.stderr == ""


async def test_sigterm_during_a_migration_cancels_its_statement(
    database_url: str, source: Path, replicas: ExitStack
) -> None:
    """Its statement would otherwise keep the tables locked that the running version needs."""
    sleeping = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND state = 'active' AND query = 'SELECT pg_sleep(600)'"
    )
    env = environment(database_url, **add_migration(source, SLOW))
    service = replicas.enter_context(Service(MIGRATE_AND_SERVE, env))
    async with asyncio.timeout(HANG_SECONDS):
        while not await query(database_url, sleeping):
            await asyncio.sleep(0.1)
    service.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(service.wait) == 128 + signal.SIGTERM
    assert service.stderr == ""
    async with asyncio.timeout(HANG_SECONDS):
        while await query(database_url, sleeping):
            await asyncio.sleep(0.1)


async def test_startup_with_a_role_without_rights_reports_one_line(
    postgres: Postgres, replicas: ExitStack
) -> None:
    settings = settings_for(postgres.url)
    async with open_database(settings) as database, database.session() as session:
        for statement in (
            "CREATE TABLE alembic_version (version_num varchar(32))",
            "CREATE ROLE powerless LOGIN",
        ):
            await session.execute(text(statement))
    url = postgres.url.replace("//postgres:@", "//powerless@")
    service = replicas.enter_context(Service(MIGRATE_AND_SERVE, environment(url)))
    assert await asyncio.to_thread(service.wait) == 1
    assert service.lines[-1]["reason"] == "permission denied for table alembic_version"
    assert "exception" not in service.lines[-1]


def test_startup_without_a_database_fails_within_its_limit(replicas: ExitStack) -> None:
    env = environment("postgresql://u:hunter2@127.0.0.1:1/x", DATABASE_WAIT_SECONDS="0.5")
    service = replicas.enter_context(Service(MIGRATE_AND_SERVE, env))
    assert service.wait() == 1
    assert "no database after 0.5 s" in service.lines[-1]["reason"]
    assert "hunter2" not in service.stdout + service.stderr


async def test_startup_when_the_database_hangs_during_the_wait_for_the_lock_fails(
    postgres: Postgres, source: Path, replicas: ExitStack
) -> None:
    limits = {"MIGRATION_WAIT_SECONDS": "3", "DATABASE_STATEMENT_TIMEOUT_SECONDS": "1"}
    env = environment(postgres.url, **add_migration(source, CONCURRENTLY), **limits)
    waiting = "waiting for another replica to migrate"
    async with open_database(settings_for(postgres.url)) as database, database.probe() as lock:
        await lock.execute(text(f"SELECT pg_advisory_lock({LOCK_KEY})"))
        service = replicas.enter_context(Service(MIGRATE_AND_SERVE, env))
        await asyncio.to_thread(wait_until, lambda: waiting in service.messages(), doing=service)
        postgres.freeze()
        try:
            assert await asyncio.to_thread(service.wait) == 1
        finally:
            postgres.thaw()
    assert service.lines[-1]["reason"] == "the database does not answer"


def test_startup_with_bad_settings_exits_with_one_line_each(replicas: ExitStack) -> None:
    env = environment("postgresql://u:p@db/x?colour=red", PORT="http", LOG_LEVEL="loud")
    service = replicas.enter_context(Service(MIGRATE_AND_SERVE, env))
    assert service.wait() == 2
    assert service.stdout == ""
    variables = [line.split(":")[1].strip() for line in service.stderr.splitlines()]
    assert variables == ["LOG_LEVEL", "PORT", "DATABASE_URL"]
    assert "'colour'" in service.stderr
