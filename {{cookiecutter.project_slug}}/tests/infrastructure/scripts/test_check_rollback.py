"""Rollbacks in a repository of the test: which commits the database allows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from check_rollback import refused_statements
from processes import ROOT, add_migration

NEXT = """
import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.execute("%s")
"""
HARMLESS = [
    "ALTER TABLE orders ADD COLUMN note TEXT",
    "ALTER TABLE orders ADD COLUMN size INTEGER DEFAULT 1 NOT NULL",
    "ALTER TABLE orders ALTER COLUMN note SET DEFAULT ''",
    "CREATE INDEX CONCURRENTLY ix_orders_note ON orders (note)",
    "UPDATE orders SET note = ''",
    "CREATE TABLE new (id BIGINT);\n\nCREATE UNIQUE INDEX ix_new ON new (id)",
    "CREATE TABLE new (id BIGINT);\n\nALTER TABLE new ADD CONSTRAINT c CHECK (id > 0)",
]
REFUSED = [
    "ALTER TABLE orders DROP COLUMN note",
    "ALTER TABLE orders RENAME COLUMN note TO remark",
    "ALTER TABLE orders RENAME TO purchases",
    "ALTER TABLE orders ALTER COLUMN number TYPE TEXT",
    "ALTER TABLE orders ALTER COLUMN note SET NOT NULL",
    "ALTER TABLE orders ALTER COLUMN note DROP DEFAULT",
    "ALTER TABLE orders ADD COLUMN note TEXT NOT NULL",
    "ALTER TABLE orders ADD CONSTRAINT c CHECK (size > 0) NOT VALID",
    "CREATE UNIQUE INDEX CONCURRENTLY ix_orders_note ON orders (note)",
    "ALTER TABLE orders ALTER COLUMN note DROP NOT NULL",
    "ALTER TABLE orders DROP CONSTRAINT uq_orders_number",
    "ALTER TABLE orders ADD COLUMN note TEXT, DROP COLUMN remark",
    "DROP INDEX ix_orders_note",
    "DROP TABLE orders",
    "DELETE FROM orders",
    "TRUNCATE orders",
    "DO $$ BEGIN END $$",
]


@pytest.mark.parametrize("sql", HARMLESS)
def test_statement_that_adds_allows_a_rollback(sql: str) -> None:
    assert refused_statements(f"BEGIN;\n\n-- Running upgrade\n\n{sql};\n\nCOMMIT;\n\n") == []


@pytest.mark.parametrize("sql", REFUSED)
def test_statement_that_removes_or_restricts_refuses_a_rollback(sql: str) -> None:
    assert refused_statements(f"BEGIN;\n\n-- Running upgrade\n\n{sql};\n\nCOMMIT;\n\n") == [sql]


class Repository:
    """A copy of this project under git."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("scripts", "src"):
            shutil.copytree(ROOT / name, folder / name)
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Test", "-c", "user.email=test@localhost")
        command = ["git", *who, *arguments]
        return subprocess.run(
            command, cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A version")
        return self.git("rev-parse", "HEAD")

    def add_migration(self, sql: str) -> None:
        add_migration(self.folder / "src", NEXT % sql)

    def check(self, commit: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(self.folder / "src")}
        command = [sys.executable, "scripts/check_rollback.py", commit]
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    if shutil.which("git") is None:
        pytest.skip("there is no git in the container, nor a history to go back in")
    return Repository(tmp_path)


def test_rollback_over_migrations_that_add_is_allowed(repository: Repository) -> None:
    first = repository.commit()
    repository.add_migration("ALTER TABLE orders ADD COLUMN note TEXT")
    repository.commit()
    result = repository.check(first[:8])
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{first}\n"


def test_second_statement_of_a_text_is_checked() -> None:
    assert refused_statements("UPDATE orders SET size = 1; DROP TABLE orders") == [
        "DROP TABLE orders"
    ]


def test_there_is_no_way_back_over_one_that_takes_away(repository: Repository) -> None:
    first = repository.commit()
    repository.add_migration("ALTER TABLE orders DROP COLUMN note")
    last = repository.commit()
    result = repository.check(first)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        "rollback refused: migrations since that commit run\nALTER TABLE orders DROP COLUMN note\n"
    )
    assert repository.check(last).returncode == 0, "but it may be deployed again"


def test_commit_outside_the_history_is_refused(repository: Repository) -> None:
    repository.commit()
    repository.git("switch", "--quiet", "--create", "elsewhere")
    elsewhere = repository.commit()
    repository.git("switch", "--quiet", "--detach", "HEAD~")
    result = repository.check(elsewhere)
    assert result.returncode == 1
    assert result.stderr == f"rollback refused: {elsewhere} is not in the history of HEAD\n"


@pytest.mark.parametrize("name", ["nowhere", "", "--all"])
def test_unknown_commit_is_refused_without_a_traceback(repository: Repository, name: str) -> None:
    repository.commit()
    result = repository.check(name)
    assert result.returncode == 1
    assert result.stderr.startswith("rollback refused: ")
    assert "Traceback" not in result.stderr
