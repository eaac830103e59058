"""The program `alembic`, used as in its own documentation, on the embedded PostgreSQL."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.db.schema_version import load_revisions
from app.dev.services import embedded_postgres
from processes import APP, ROOT, add_model, environment

HEAD = load_revisions().head
COUNT = len(load_revisions().known)
ALEMBIC = [sys.executable, "-m", "alembic"]


class Project:
    """A copy of this project without DATABASE_URL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = folder / "src" / "app" / "migrations" / "versions"
        shutil.copytree(ROOT / "src", folder / "src")
        for name in ("pyproject.toml", ".squawk.toml"):
            shutil.copy(ROOT / name, folder)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = environment("", PYTHONPATH=str(self.folder / "src"), ENVIRONMENT="development")
        env |= {"LOG_FORMAT": "json"} | variables
        env.pop("PYTEST_ADDOPTS", None)
        if "DATABASE_URL" not in variables:
            del env["DATABASE_URL"]
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )

    def alembic(self, *arguments: str) -> str:
        """Run the program, and return its standard output."""
        result = self.run(*ALEMBIC, *arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def new_files(self) -> set[str]:
        """Return the migrations that this project did not begin with."""
        before = {file.name for file in (ROOT / "src/app/migrations/versions").glob("*.py")}
        return {file.name for file in self.versions.glob("*.py")} - before

    def check_style(self) -> None:
        for arguments in (["check"], ["format", "--check"]):
            result = self.run(sys.executable, "-m", "ruff", *arguments, str(self.versions))
            assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def project() -> Iterator[Project]:
    """Yield a project outside of `tmp_path`: pytest locks its folders while PostgreSQL starts."""
    with TemporaryDirectory(prefix="test-alembic-", ignore_cleanup_errors=True) as folder:
        yield Project(Path(folder))


@pytest.fixture
def served(project: Project) -> Iterator[Project]:
    """Yield a project whose embedded server is running, so that commands join it."""
    with embedded_postgres(project.folder / ".data" / "postgres"):
        yield project


def number(offset: int) -> str:
    return f"{max((int(r) for r in load_revisions().known), default=0) + offset:04d}"


def test_alembic_without_database_url_starts_and_stops_the_embedded_server(
    project: Project,
) -> None:
    assert project.alembic("current") == ""
    assert (project.folder / ".data" / "postgres" / "PG_VERSION").exists()
    assert not (project.folder / ".data" / "postgres" / "postmaster.pid").exists()


def test_alembic_with_wrong_settings_prints_one_line(project: Project) -> None:
    result = project.run(*ALEMBIC, "current", PORT="http")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("settings: PORT: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(HEAD is None, reason="this service has no migration to apply")
def test_alembic_upgrade_downgrade_and_history_work_as_documented(served: Project) -> None:
    result = served.run(*ALEMBIC, "upgrade", "head")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("INFO  [alembic.runtime.migration] Running upgrade") == COUNT
    assert result.stdout == ""
    assert served.alembic("current") == f"{HEAD} (head)\n"
    assert len(served.alembic("history").splitlines()) == COUNT
    assert served.alembic("check") == "No new upgrade operations detected.\n"
    served.alembic("downgrade", "-1")
    assert "(head)" not in served.alembic("current")
    assert served.run(*ALEMBIC, "check").returncode != 0
    served.alembic("upgrade", "+1")
    assert served.alembic("current") == f"{HEAD} (head)\n"
    assert served.alembic("upgrade", "head", "--sql").startswith("BEGIN;")


def test_alembic_autogenerate_writes_a_numbered_file_that_passes_every_check(
    served: Project,
) -> None:
    add_model(served.folder / "src")
    served.alembic("upgrade", "head")
    served.alembic("revision", "--autogenerate", "-m", "add notes")
    assert served.new_files() == {f"{number(1)}_add_notes.py"}
    text = (served.versions / f"{number(1)}_add_notes.py").read_text()
    assert f'revision = "{number(1)}"' in text
    assert f"down_revision = {HEAD!r}".replace("'", '"') in text
    assert 'op.create_table(\n        "notes"' in text
    assert "import app.features.notes.models\n" in text
    served.check_style()
    served.alembic("upgrade", "head")
    assert served.alembic("check") == "No new upgrade operations detected.\n"


def test_alembic_revision_by_hand_has_the_imports_it_needs(served: Project) -> None:
    served.alembic("revision", "-m", "fill notes.")
    file = served.versions / f"{number(1)}_fill_notes.py"
    assert file.read_text().startswith(
        '"""fill notes."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n'
    )
    served.alembic("revision", "-m", "more", "--rev-id", "abc", "--branch-label", "side")
    assert 'branch_labels = ("side",)' in (served.versions / "abc_more.py").read_text()
    served.check_style()


def test_two_heads_are_named_with_the_command_that_merges_them(
    served: Project, empty_database: str
) -> None:
    """Then the merge passes this project's own tests of migrations."""
    served.alembic("revision", "-m", "add x")
    served.alembic("revision", "-m", "add y", "--head", HEAD or "base", "--splice")
    assert len(served.alembic("heads").splitlines()) == 2
    both = f"{number(1)}_add_x.py and {number(2)}_add_y.py"
    merge = 'uv run alembic merge heads -m "merge branches"'
    reason = f"the migrations have several heads, {both}: run `{merge}`"
    for command in ("migrate", "check"):
        result = served.run(*APP, command)
        assert result.returncode == 1
        assert reason in result.stdout.replace("\\", "")
        assert "run `app migrate`" not in result.stdout

    served.alembic("merge", "heads", "-m", "merge branches")
    (merged,) = (name for name in served.new_files() if re.match(r"\w+_merge_branches\.py", name))
    assert (
        f'down_revision = ("{number(1)}", "{number(2)}")' in (served.versions / merged).read_text()
    )
    served.check_style()
    assert served.run(*APP, "migrate").returncode == 0
    assert served.alembic("current") == f"{merged.partition('_')[0]} (head) (mergepoint)\n"
    shutil.copytree(ROOT / "tests", served.folder / "tests")
    tests = ["tests/db/test_migrate.py", "-k", "migration", "-p", "no:cacheprovider"]
    urls = {name: url for name, url in os.environ.items() if name.startswith("TEST_")}
    urls["TEST_DATABASE_URL"] = empty_database
    result = served.run(sys.executable, "-m", "pytest", *tests, **urls)
    assert result.returncode == 0, result.stdout
    served.alembic("revision", "-m", "add z")
    assert f"{number(3)}_add_z.py" in served.new_files(), "a merge takes no number"


def test_two_files_with_one_revision_are_refused(served: Project) -> None:
    served.alembic("revision", "-m", "add x")
    x = (served.versions / f"{number(1)}_add_x.py").read_text()
    (served.versions / f"{number(1)}_add_y.py").write_text(x)
    reason = (
        f"two migrations have the same revision ({number(1)}_add_x.py and {number(1)}_add_y.py): "
        f"rename the one that is not deployed to {number(2)}_…, with revision = "
        f'"{number(2)}" and down_revision = "{number(1)}"'
    )
    for command in ([*ALEMBIC, "upgrade", "head"], [*APP, "migrate"]):
        result = served.run(*command)
        assert result.returncode != 0
        assert reason in (result.stdout + result.stderr).replace("\\", "")
