"""Rollbacks in a repository of the test: which commits the database allows."""

import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from check_rollback import refused_statements
from processes import ROOT, add_migration

PROGRAM = str(ROOT / "scripts" / "check_rollback.py")
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


@dataclass(frozen=True)
class Checked:
    """What the program printed, and why it refused the rollback."""

    stdout: str
    refused: object


class Repository:
    """A copy of the migrations of this project under git."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        shutil.copytree(ROOT / "src/app/migrations", folder / "src/app/migrations")
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

    def check(self, commit: str) -> Checked:
        """Run the program in this process: its imports take most of the time of a new one."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr("sys.argv", [PROGRAM, commit])
            refused = None
            try:
                runpy.run_path(PROGRAM, run_name="__main__")
            except SystemExit as error:
                refused = error.code
        return Checked(self._capsys.readouterr().out, refused)


@pytest.fixture
def repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Repository:
    if shutil.which("git") is None:
        pytest.skip("there is no git in the container, nor a history to go back in")
    return Repository(tmp_path, capsys)


def test_rollback_over_migrations_that_add_is_allowed(repository: Repository) -> None:
    first = repository.commit()
    repository.add_migration("ALTER TABLE orders ADD COLUMN note TEXT")
    repository.commit()
    assert repository.check(first[:8]) == Checked(f"{first}\n", None)


def test_program_in_a_process_of_its_own_prints_the_commit(repository: Repository) -> None:
    commit = repository.commit()
    result = subprocess.run(
        [sys.executable, PROGRAM, "HEAD"],
        cwd=repository.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, f"{commit}\n"), result.stderr


def test_second_statement_of_a_text_is_checked() -> None:
    assert refused_statements("UPDATE orders SET size = 1; DROP TABLE orders") == [
        "DROP TABLE orders"
    ]


def test_there_is_no_way_back_over_one_that_takes_away(repository: Repository) -> None:
    first = repository.commit()
    repository.add_migration("ALTER TABLE orders DROP COLUMN note")
    last = repository.commit()
    reason = "migrations since that commit run\nALTER TABLE orders DROP COLUMN note"
    assert repository.check(first) == Checked("", f"rollback refused: {reason}")
    assert repository.check(last).refused is None, "but it may be deployed again"


def test_commit_outside_the_history_is_refused(repository: Repository) -> None:
    repository.commit()
    repository.git("switch", "--quiet", "--create", "elsewhere")
    elsewhere = repository.commit()
    repository.git("switch", "--quiet", "--detach", "HEAD~")
    reason = f"{elsewhere} is not in the history of HEAD"
    assert repository.check(elsewhere) == Checked("", f"rollback refused: {reason}")


@pytest.mark.parametrize("name", ["nowhere", "", "--all"])
def test_unknown_commit_is_refused_without_a_traceback(repository: Repository, name: str) -> None:
    repository.commit()
    checked = repository.check(name)
    assert checked.stdout == ""
    assert str(checked.refused).startswith("rollback refused: ")
