"""Check whether an earlier commit works with the schema of this one.

    uv run python scripts/check_rollback.py COMMIT

A version works with a newer schema if no migration removed anything that it uses or added a
constraint that it may violate. This program reads the SQL of every migration since the commit, and
refuses statements that are not known to be harmless. It prints the full SHA of the commit.
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
    """The schema or the commit does not allow a rollback: one line for each reason."""


def git(*arguments: str) -> bytes:
    """Return the output of a git command.

    Raises:
        RollbackRefused: the command failed, for example because the commit does not exist.
    """
    result = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip()
        raise RollbackRefused(reason or f"git {arguments[0]} failed")
    return result.stdout


def earlier_commit(name: str) -> str:
    """Return the full SHA of a commit in the history of HEAD.

    Raises:
        RollbackRefused: the commit does not exist, or is not in the history of HEAD.
    """
    commit = git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    try:
        git("merge-base", "--is-ancestor", commit, "HEAD")
    except RollbackRefused as error:
        raise RollbackRefused(f"{commit} is not in the history of HEAD") from error
    return commit


def alembic_config(folder: str) -> Config:
    """Return the configuration of the migrations in a folder with this repository."""
    config = Config()
    config.set_main_option("script_location", str(Path(folder, MIGRATIONS)))
    return config


def last_migration(commit: str) -> str | None:
    """Return the head revision of a commit's migrations; None if it has none."""
    with tempfile.TemporaryDirectory() as folder:
        archive = git("archive", commit, MIGRATIONS)
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        return ScriptDirectory.from_config(alembic_config(folder)).get_current_head()


def sql_since(revision: str | None) -> str:
    """Return the SQL of the migrations after a revision, without a connection."""
    config = alembic_config(".")
    config.output_buffer = io.StringIO()
    command.upgrade(config, f"{revision or 'base'}:head", sql=True)
    return config.output_buffer.getvalue()


def refused_statements(sql: str) -> list[str]:
    """Return the statements that are not known to be harmless to the previous version.

    Statements about new tables are harmless, because the previous version does not use them.

    Args:
        sql: in Alembic's format. A semicolon in a string splits a statement, which is then refused.
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
    """Return the full SHA of a commit that allows a rollback.

    Raises:
        RollbackRefused: with every statement that is not known to be harmless.
    """
    commit = earlier_commit(name)
    if refused := refused_statements(sql_since(last_migration(commit))):
        raise RollbackRefused("migrations since that commit run\n" + "\n".join(refused))
    return commit


if __name__ == "__main__":
    try:
        print(check(sys.argv[1]))
    except RollbackRefused as error:
        sys.exit(f"rollback refused: {error}")
