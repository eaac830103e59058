import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, inspect, text

from app.db.engine import create_engine, create_migration_engine
from app.db.migrate import LOCK_KEY, alembic_config, load_models, migrate
from app.db.schema_version import MigrationError, Revisions
from app.migrations import pgqueuer  # option: postgres
from app.migrations.checks import PLUGINS
from app.migrations.squawk import check, unsafe_statements
from conftest import settings_for
from processes import HANG_SECONDS

CODE = Revisions(head="0003", known=frozenset({"0001", "0002", "0003"}))
SCRIPTS = ScriptDirectory.from_config(alembic_config())


@pytest.mark.parametrize(
    ("current", "state"),
    [
        (set(), "behind"),
        ({"0001"}, "behind"),
        ({"0001", "0002"}, "behind"),
        ({"0003"}, "current"),
        ({"0004"}, "ahead"),
        ({"0003", "0004"}, "ahead"),
    ],
)
def test_database_compared_with_code_is_current_behind_or_ahead(
    current: set[str], state: str
) -> None:
    assert CODE.state_of(frozenset(current)) == state


def test_empty_database_without_migrations_is_current() -> None:
    assert Revisions(None, frozenset()).state_of(frozenset()) == "current"


async def run(url: str, *steps: str) -> None:
    engine = create_migration_engine(settings_for(url))

    def run_steps(connection: Connection) -> None:
        config = alembic_config(connection)
        for step in steps:
            name, _, revision = step.partition(" ")
            (command.upgrade if name == "upgrade" else command.downgrade)(config, revision)

    async with engine.connect() as connection:
        await connection.run_sync(run_steps)
        await connection.commit()
    await engine.dispose()


async def tables(url: str) -> set[str]:
    engine = create_engine(settings_for(url), pool_size=1)
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(names) - {"alembic_version"}


async def test_every_migration_upgrades_downgrades_and_upgrades_again(
    empty_database: str,
) -> None:
    for script in reversed(list(SCRIPTS.walk_revisions())):
        await run(empty_database, f"upgrade {script.revision}")
        if not script.is_merge_point:  # a merge changes nothing
            before = _before(script)
            await run(empty_database, f"downgrade {before}", f"upgrade {script.revision}")
    expected = set(load_models().tables)
    expected |= {"pgqueuer", "pgqueuer_log"}  # option: postgres
    expected |= {"pgqueuer_schedules", "pgqueuer_statistics"}  # option: postgres
    assert await tables(empty_database) == expected
    await run(empty_database, "downgrade base")
    assert await tables(empty_database) == set()


async def test_models_compared_with_migrations_have_no_difference(database_url: str) -> None:
    engine = create_engine(settings_for(database_url), pool_size=1)

    def differences(connection: Connection) -> object:
        options: dict[str, Any] = {"autogenerate_plugins": PLUGINS}
        options["include_name"] = pgqueuer.is_compared  # option: postgres
        return compare_metadata(MigrationContext.configure(connection, opts=options), load_models())

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def test_migrations_checked_by_squawk_are_safe_on_a_table_in_use() -> None:
    """Squawk finds table rewrites, long locks, and changes that break the running version."""
    for script in SCRIPTS.walk_revisions():
        assert unsafe_statements(script) == []


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("CREATE INDEX i ON orders (title);", "require-concurrent-index-creation"),
        ("ALTER TABLE orders DROP COLUMN title;", "ban-drop-column"),
        ("ALTER TABLE orders ALTER COLUMN title SET NOT NULL;", "adding-not-nullable-field"),
    ],
)
def test_unsafe_statement_is_found_by_squawk(statement: str, rule: str) -> None:
    found = check(statement, "0042_add_title.py")
    assert any(re.fullmatch(rf"0042_add_title\.py: .*\({rule}\)", line) for line in found)


def _before(script: Script) -> str:
    assert isinstance(script.down_revision, str | None)
    return script.down_revision or "base"


async def test_migrate_at_the_last_migration_takes_no_lock(database_url: str) -> None:
    engine = create_engine(settings_for(database_url), pool_size=1)
    async with engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_advisory_lock({LOCK_KEY})"))
        async with asyncio.timeout(HANG_SECONDS):
            await migrate(settings_for(database_url, migration_wait_seconds=0))
    await engine.dispose()


async def test_migrate_while_another_replica_migrates_waits_within_its_limit(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.migrate.load_revisions", lambda: CODE)
    engine = create_engine(settings_for(empty_database), pool_size=1)
    async with engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_advisory_lock({LOCK_KEY})"))
        with pytest.raises(MigrationError, match="another replica"):
            await migrate(settings_for(empty_database, migration_wait_seconds=0.3))
    await engine.dispose()


async def test_migrate_to_a_revision_takes_the_same_lock(
    empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "0001.py").write_text('revision = "0001"\ndown_revision = None\n')
    monkeypatch.setattr("app.db.migrate.load_revisions", lambda: CODE)
    monkeypatch.setattr("app.db.migration_target.MIGRATIONS", tmp_path)
    engine = create_engine(settings_for(empty_database), pool_size=1)
    async with engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_advisory_lock({LOCK_KEY})"))
        with pytest.raises(MigrationError, match="another replica"):
            await migrate(settings_for(empty_database, migration_wait_seconds=0.3), to="0001")
    await engine.dispose()


async def test_migrate_to_the_last_revision_of_older_code_is_refused(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.migrate.load_revisions", lambda: CODE)
    engine = create_engine(settings_for(empty_database), pool_size=1)
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE alembic_version AS SELECT '0004' version_num"))
    await engine.dispose()
    await migrate(settings_for(empty_database))
    for name in ("0003", "head"):
        with pytest.raises(MigrationError, match="at 0004, which this code does not have"):
            await migrate(settings_for(empty_database), to=name)


async def test_migrate_without_a_database_waits_within_its_limit() -> None:
    nowhere = settings_for("postgresql://u:p@127.0.0.1:1/x", database_wait_seconds=0.3)
    with pytest.raises(MigrationError, match=r"no database after 0\.3 s"):
        await migrate(nowhere)


@pytest.mark.parametrize("unpooled", [None, "postgresql://pooler.invalid/app?pgbouncer=true"])
async def test_migrations_through_a_transaction_pooler_are_refused_at_once(
    unpooled: str | None,
) -> None:
    pooled = "postgresql://pooler.invalid/app?pgbouncer=true"
    settings = settings_for(pooled, database_unpooled_url=unpooled, database_wait_seconds=5)
    with pytest.raises(MigrationError, match="set DATABASE_UNPOOLED_URL"):
        await migrate(settings)
