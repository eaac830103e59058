"""Says whether an earlier commit can serve the database as the migrations since have left it.

    uv run python scripts/check_rollback.py COMMIT

A version serves a database that is newer than it, so long as nothing is gone that it uses, and
nothing is demanded that it does not give. So this reads the SQL of every migration since, and
refuses what is not known to be harmless. Prints the commit's whole id, for whatever deploys it.
"""

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.db.migrate import alembic_config

MIGRATIONS = "src/app/migrations"
HARMLESS = re.compile(
    r"BEGIN|COMMIT|SET |COMMENT ON |CREATE TABLE |CREATE INDEX |CREATE EXTENSION |INSERT INTO |"
    r"UPDATE |ALTER TABLE \S+ (?!.*, *(ADD|ALTER|DROP|RENAME) )(VALIDATE |ADD COLUMN .* DEFAULT |"
    r"ADD COLUMN (?!.* NOT NULL)|ALTER COLUMN \S+ SET DEFAULT )",
    re.IGNORECASE,
)
NEW_TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\S+)", re.IGNORECASE)
OF_TABLE = re.compile(r"(?:ALTER TABLE|CREATE UNIQUE INDEX .* ON|DELETE FROM) (\S+)", re.IGNORECASE)


class RollbackRefused(Exception):
    """A line for each reason."""


def git(*arguments: str) -> bytes:
    """What a git command prints.

    Raises:
        RollbackRefused: it failed, which it does where something is not there.
    """
    result = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip()
        raise RollbackRefused(reason or f"git {arguments[0]} says no")
    return result.stdout


def earlier_commit(name: str) -> str:
    """The whole id of a commit that is in the history of this one.

    Raises:
        RollbackRefused: it is not.
    """
    commit = git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    try:
        git("merge-base", "--is-ancestor", commit, "HEAD")
    except RollbackRefused as error:
        raise RollbackRefused(f"{commit} is not in the history of what runs") from error
    return commit


def last_migration(commit: str) -> str | None:
    """The revision that a commit's own migrations lead to; None if it has none."""
    with tempfile.TemporaryDirectory() as folder:
        archive = git("archive", commit, MIGRATIONS)
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        config = Config()
        config.set_main_option("script_location", str(Path(folder, MIGRATIONS)))
        return ScriptDirectory.from_config(config).get_current_head()


def sql_since(revision: str | None) -> str:
    """What the migrations after a revision do, as SQL; nothing is connected to."""
    config = alembic_config()
    config.output_buffer = io.StringIO()
    command.upgrade(config, f"{revision or 'base'}:head", sql=True)
    return config.output_buffer.getvalue()


def refused_statements(sql: str) -> list[str]:
    """Those that are not known to be harmless to the version before; new tables it does not know.

    Args:
        sql: as Alembic writes it. A semicolon within a string makes two of one statement, and
            so a refusal.
    """
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    statements = [" ".join(part.split()) for part in "\n".join(lines).split(";")]
    new = {match[1] for s in statements if (match := NEW_TABLE.match(s))}
    refused = []
    for statement in filter(None, statements):
        table = OF_TABLE.match(statement)
        if not HARMLESS.match(statement) and not (table and table[1] in new):
            refused.append(statement)
    return refused


def check(name: str) -> str:
    """The whole id of a commit that may be gone back to.

    Raises:
        RollbackRefused: with every statement that speaks against it.
    """
    commit = earlier_commit(name)
    if refused := refused_statements(sql_since(last_migration(commit))):
        raise RollbackRefused("migrations since then say\n" + "\n".join(refused))
    return commit


if __name__ == "__main__":
    try:
        print(check(sys.argv[1]))
    except RollbackRefused as error:
        sys.exit(f"no way back: {error}")
