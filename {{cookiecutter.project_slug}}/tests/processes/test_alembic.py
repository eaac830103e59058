"""The program `alembic`, used as in its own documentation.

One test uses the embedded PostgreSQL. The others set DATABASE_URL, which costs less time.
"""

import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from alembic.script import ScriptDirectory

from app.db.schema_version import MIGRATIONS, load_revisions, next_number
from app.dev.services import embedded_postgres
from clusters import copy_cluster, fast_folder
from processes import RESERVED, ROOT, Finished, add_model, environment, run

HEAD = load_revisions().head
COUNT = len(load_revisions().known)


class Project:
    """A copy of this project.

    Args:
        folder: of the copy.
        database_url: for the commands; without it, they start the embedded PostgreSQL.
    """

    def __init__(self, folder: Path, database_url: str | None = None) -> None:
        self.folder = folder
        self._database_url = database_url
        self.versions = folder / "src" / "app" / "migrations" / "versions"
        shutil.copytree(ROOT / "src", folder / "src")
        for name in ("pyproject.toml", ".squawk.toml"):
            shutil.copy(ROOT / name, folder)

    def run(self, *command: str, **variables: str) -> Finished:
        env = environment(
            self._database_url or "",
            PYTHONPATH=str(self.folder / "src"),
            ENVIRONMENT="development",
            LOG_FORMAT="json",
            **variables,
        )
        env.pop("PYTEST_ADDOPTS", None)
        if self._database_url is None:
            del env["DATABASE_URL"]
        return run([*command], env, self.folder)

    def alembic(self, *arguments: str) -> str:
        """Run the program, and return its standard output."""
        result = self.run("alembic", *arguments)
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
def project(tmp_path: Path, empty_database: str) -> Project:
    return Project(tmp_path, empty_database)


def number(offset: int) -> str:
    """Return the number of the next migration, or of a later one."""
    return f"{int(next_number(ScriptDirectory(MIGRATIONS))) + offset - 1:04d}"


def test_alembic_without_database_url_uses_the_embedded_server() -> None:
    # Outside of `tmp_path`: pytest locks its folders while PostgreSQL starts.
    with TemporaryDirectory(
        dir=fast_folder(), prefix="test-alembic-", ignore_cleanup_errors=True
    ) as folder:
        project, data = Project(Path(folder)), Path(folder, ".data", "postgres")
        copy_cluster(data)
        assert project.alembic("current") == ""
        assert not (data / "postmaster.pid").exists(), "the command stops the server"
        with embedded_postgres(data):  # the commands join it
            project.alembic("upgrade", "head")
            # Alembic adds "(mergepoint)" if the head merges two branches.
            assert project.alembic("current").startswith(f"{HEAD} (head)" if HEAD else "")


def test_commands_of_the_documentation_of_alembic_work(project: Project) -> None:
    assert project.alembic("current") == ""
    project.alembic("revision", "-m", "reserved for tests")
    result = project.run("alembic", "upgrade", "head")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("INFO  [alembic.runtime.migration] Running upgrade") == COUNT + 1
    assert result.stdout == ""
    assert project.alembic("current") == f"{number(1)} (head)\n"
    assert len(project.alembic("history").splitlines()) == COUNT + 1
    assert project.alembic("check") == "No new upgrade operations detected.\n"
    project.alembic("downgrade", "-1")
    assert "(head)" not in project.alembic("current")
    assert project.run("alembic", "check").returncode != 0
    project.alembic("upgrade", "+1")
    assert project.alembic("current") == f"{number(1)} (head)\n"
    assert project.alembic("upgrade", "head", "--sql").startswith("BEGIN;")


def test_alembic_with_wrong_settings_prints_one_line(project: Project) -> None:
    result = project.run("alembic", "current", PORT="http")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("settings: PORT: ")
    assert len(result.stderr.splitlines()) == 1


def test_alembic_autogenerate_writes_a_numbered_file_that_passes_every_check(
    project: Project,
) -> None:
    add_model(project.folder / "src")
    project.alembic("upgrade", "head")
    assert "(prefer-" not in project.alembic("revision", "--autogenerate", "-m", RESERVED)
    assert project.new_files() == {f"{number(1)}_{RESERVED}.py"}
    text = (project.versions / f"{number(1)}_{RESERVED}.py").read_text()
    assert f'revision = "{number(1)}"' in text
    assert f"down_revision = {HEAD!r}".replace("'", '"') in text
    assert 'op.create_table(\n        "_test_notes"' in text
    assert f"import app.features.{RESERVED}.models\n" in text
    project.check_style()
    project.alembic("upgrade", "head")
    assert project.alembic("check") == "No new upgrade operations detected.\n"


def test_unsafe_statement_of_a_new_migration_is_reported_at_once(project: Project) -> None:
    add_model(project.folder / "src")
    models = project.folder / "src" / "app" / "features" / RESERVED / "models.py"
    serial = "Mapped[int] = mapped_column(primary_key=True)"
    models.write_text(models.read_text().replace("Mapped[NumberedId]", serial))
    result = project.run("app", "migration", "add x")
    assert result.returncode == 0, result.stderr
    (advice,) = (line for line in result.stdout.splitlines() if "(prefer-identity)" in line)
    assert advice.startswith(f"{number(1)}_add_x.py: ")
    assert "Generating static SQL" not in result.stdout, "no line of the check itself"
    assert "\x1b" not in advice, "no colour"


def test_change_of_several_steps_is_written_as_several_migrations(project: Project) -> None:
    project.alembic("upgrade", "head")
    add_model(project.folder / "src")
    project.run("app", "migration", "add x")
    models = project.folder / "src" / "app" / "features" / RESERVED / "models.py"
    models.write_text(models.read_text().replace("(Markdown)", "(Markdown, index=True)"))
    result = project.run("app", "migration", "find x")
    assert result.returncode == 0, result.stdout + result.stderr
    models.write_text(models.read_text().replace("index=True", "unique=True"))
    project.alembic("upgrade", "head")
    project.alembic("revision", "--autogenerate", "-m", "tell x")
    names = ["add_x", "find_x", "tell_x", "tell_x_constraints"]
    assert project.new_files() == {f"{number(n)}_{name}.py" for n, name in enumerate(names, 1)}
    project.check_style()
    assert project.run("app", "migrate").returncode == 0
    assert project.alembic("check") == "No new upgrade operations detected.\n"


def test_alembic_revision_by_hand_has_the_imports_it_needs(project: Project) -> None:
    project.alembic("revision", "-m", "fill notes.")
    file = project.versions / f"{number(1)}_fill_notes.py"
    assert file.read_text().startswith(
        '"""fill notes."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n'
    )
    project.alembic("revision", "-m", "more", "--rev-id", "abc", "--branch-label", "side")
    assert 'branch_labels = ("side",)' in (project.versions / "abc_more.py").read_text()
    project.check_style()


def test_two_heads_are_named_with_the_command_that_merges_them(project: Project) -> None:
    """Then the merge passes this project's own tests of migrations."""
    project.alembic("revision", "-m", "add x")
    project.alembic("revision", "-m", "add y", "--head", HEAD or "base", "--splice")
    assert len(project.alembic("heads").splitlines()) == 2
    both = f"{number(1)}_add_x.py and {number(2)}_add_y.py"
    merge = 'uv run alembic merge heads -m "merge branches"'
    reason = f"the migrations have several heads, {both}: run `{merge}`"
    for command in ("migrate", "check"):
        result = project.run("app", command)
        assert result.returncode == 1
        assert reason in result.stdout.replace("\\", "")
        assert "run `app migrate`" not in result.stdout

    project.alembic("merge", "heads", "-m", "merge branches")
    (merged,) = (name for name in project.new_files() if re.match(r"\w+_merge_branches\.py", name))
    assert (
        f'down_revision = ("{number(1)}", "{number(2)}")' in (project.versions / merged).read_text()
    )
    project.check_style()
    assert project.run("app", "migrate").returncode == 0
    assert project.alembic("current") == f"{merged.partition('_')[0]} (head) (mergepoint)\n"
    shutil.copytree(ROOT / "tests", project.folder / "tests")
    tests = ["tests/infrastructure/db/test_migrate.py", "-p", "no:cacheprovider"]
    tests += ["-k", "every_migration or with_migrations or checked_by_squawk"]
    result = project.run(sys.executable, "-m", "pytest", *tests)
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout
    project.alembic("revision", "-m", "add z")
    assert f"{number(3)}_add_z.py" in project.new_files(), "a merge takes no number"


def test_two_files_with_one_revision_are_refused(project: Project) -> None:
    project.alembic("revision", "-m", "add x")
    x = (project.versions / f"{number(1)}_add_x.py").read_text()
    (project.versions / f"{number(1)}_add_y.py").write_text(x)
    reason = (
        f"two migrations have the same revision ({number(1)}_add_x.py and {number(1)}_add_y.py): "
        "run `uv run app renumber FILE`"
    )
    for command in (["alembic", "upgrade", "head"], ["app", "migrate"], ["app", "check"]):
        result = project.run(*command)
        assert result.returncode != 0
        assert reason in (result.stdout + result.stderr).replace("\\", "")
    result = project.run("app", "renumber", f"{number(1)}_add_y.py")
    assert (result.returncode, result.stdout) == (0, f"{number(2)}_add_y.py\n"), result.stderr
    assert project.run("app", "migrate").returncode == 0
    assert project.alembic("current") == f"{number(2)} (head)\n"
