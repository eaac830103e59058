"""Writing a migration: a matter of development, since ruff is no part of production."""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from alembic import command
from alembic.operations.ops import MigrationScript
from sqlalchemy import Connection

from app.db.engine import create_engine
from app.db.migrate import alembic_config
from app.db.schema_version import MigrationError, load_revisions, read_revision
from app.db.settings import DatabaseSettings


class NewMigration(NamedTuple):
    path: Path
    is_empty: bool  # models and database agree


async def write_migration(settings: DatabaseSettings, message: str) -> NewMigration:
    """Write the next migration from the difference between models and database.

    Args:
        settings: of a database that has every migration of this code.
        message: what the migration does; its file is called after it.

    Raises:
        MigrationError: the database has migrations that this code has not.
    """
    revisions = load_revisions()
    next_number = max((int(r) for r in revisions.known if r.isdigit()), default=0) + 1
    engine = create_engine(settings, pool_size=1, for_migrations=True)
    try:
        async with engine.connect() as connection:
            current = await read_revision(connection)
            await connection.rollback()  # where nothing was ever migrated, reading has failed
            if revisions.state_of(current) == "ahead":
                raise MigrationError(
                    f"the database is at {current}, which this code does not have: get the code "
                    "that has it, or take an empty database (in development, delete .data/)"
                )
            return await connection.run_sync(_write, message, f"{next_number:04d}")
    finally:
        await engine.dispose()


def _write(connection: Connection, message: str, number: str) -> NewMigration:
    config = alembic_config(connection)
    config.cmd_opts = argparse.Namespace(quiet=True)
    written: list[MigrationScript] = []

    def remember(_context: object, _revision: object, directives: list[Any]) -> None:
        written.extend(directives)

    script = command.revision(
        config, message, autogenerate=True, rev_id=number, process_revision_directives=remember
    )
    assert not isinstance(script, list)
    assert script is not None
    is_empty = all(one.upgrade_ops is None or one.upgrade_ops.is_empty() for one in written)
    if not is_empty:  # otherwise somebody fills it in, and needs the imports
        _ruff("check", "--fix-only", script.path)
    _ruff("format", script.path)
    return NewMigration(Path(script.path), is_empty)


def _ruff(*arguments: str) -> None:
    """Put it in this project's style."""
    program = [sys.executable, "-m", "ruff", *arguments, "--quiet"]
    subprocess.run(program, check=True)  # noqa: S603 - the one path in it is Alembic's
