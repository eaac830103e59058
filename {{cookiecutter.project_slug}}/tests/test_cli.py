import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli import main
from app.db.schema_version import load_revisions
from app.settings_docs import env_template, production_template, settings_page
from processes import APP, ROOT, Service, add_migration, environment, wait_until

STARTED = "Application startup complete."
NOTES = """
from sqlalchemy import Text, TypeDecorator
from sqlalchemy.orm import Mapped, mapped_column

from app.db.session import Base


class Markdown(TypeDecorator):
    impl = Text
    cache_ok = True


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Markdown)
"""


def app(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = environment(variables.pop("DATABASE_URL", ""), **variables)
    return subprocess.run(
        [*APP, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


def test_check_reports_every_part_and_succeeds(database_url: str) -> None:
    result = app("check", DATABASE_URL=database_url, LOG_LEVEL="error")
    assert result.returncode == 0, result.stderr
    report = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["settings", "ok"] in report
    assert ["database", "ok"] in report
    assert ["migrations", "ok"] in report
    assert "redis" not in result.stdout  # option: redis


def test_check_says_what_is_wrong_and_fails(empty_database: str, source: Path) -> None:
    newer = add_migration(source, "revision = '9000'\ndown_revision = {after!r}\n")
    result = app("check", DATABASE_URL=empty_database, **newer)
    assert result.returncode == 1
    assert "migrations  failed  MigrationError: the database is at no revision" in result.stdout
    assert "`app migrate` brings it there" in result.stdout
    result = app("check", DATABASE_URL="postgresql://u:p@127.0.0.1:1/x")
    assert result.returncode == 1
    assert "database    failed" in result.stdout
    assert "ConnectionRefusedError" in result.stdout
    assert "{" not in result.stdout  # no log line that says it again


def test_a_mistake_in_a_migration_is_one_line_with_its_place(
    empty_database: str, source: Path
) -> None:
    text = "revision = '9000'\ndown_revision = {after!r}\n\ndef upgrade():\n    nowhere()\n"
    result = app("migrate", DATABASE_URL=empty_database, **add_migration(source, text))
    assert result.returncode == 1
    assert "name 'nowhere' is not defined (9000_of_this_test.py, line 5)" in result.stdout
    assert "Traceback" not in result.stdout


def test_the_help_has_a_whole_sentence_for_every_command() -> None:
    help_page = CliRunner().invoke(main, ["--help"]).stdout
    assert set(main.commands) <= set(help_page.split())
    assert "..." not in help_page.partition("Commands:")[2]


def test_check_refuses_bad_settings_with_its_own_exit_code() -> None:
    result = CliRunner().invoke(main, ["check"], env={"PORT": "http"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("settings: PORT: ")


def test_outside_development_nothing_is_embedded() -> None:
    production = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "api.example.com"}
    result = CliRunner().invoke(main, ["migrate"], env=production)
    assert result.exit_code == 2
    assert result.stderr.startswith("settings: DATABASE_URL is missing")


def test_migrate_and_seed_may_be_repeated(empty_database: str) -> None:
    assert app("migrate", DATABASE_URL=empty_database).returncode == 0
    app("seed", DATABASE_URL=empty_database)
    again = app("seed", DATABASE_URL=empty_database)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "0 rows added")


def test_migration_writes_the_difference_under_the_next_number(
    empty_database: str, source: Path
) -> None:
    copy = {"DATABASE_URL": empty_database, "PYTHONPATH": str(source)}
    versions = source / "app" / "migrations" / "versions"
    number = max((int(file.name[:4]) for file in versions.glob("[0-9]*.py")), default=0) + 1
    shutil.copy(ROOT / "pyproject.toml", source.parent)  # its style
    (source / "app" / "notes").mkdir()
    (source / "app" / "notes" / "__init__.py").touch()
    (source / "app" / "notes" / "models.py").write_text(NOTES)
    result = app("migration", "add notes", **copy)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    written = Path(result.stdout.splitlines()[-1])
    assert written == versions / f"{number:04d}_add_notes.py"
    assert 'op.create_table(\n        "notes"' in written.read_text()
    for style in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *style, str(written)]
        report = subprocess.run(ruff, cwd=source.parent, capture_output=True, check=False)
        assert report.returncode == 0, report.stdout
    assert app("migrate", **copy).returncode == 0

    again = app("migration", "add notes of hand", **copy)
    assert again.returncode == 0
    assert again.stderr.startswith("note: the models and the database agree, so it is empty")
    assert app("migrate", **copy).returncode == 0

    other_branch = app("migration", "add tags", DATABASE_URL=empty_database)
    assert other_branch.returncode == 1
    newest = f"{number + 1:04d}"
    assert other_branch.stderr.startswith(f"error: the database is at {newest}, which this code ")
    assert len(other_branch.stderr.splitlines()) == 1


@pytest.mark.parametrize("message", ["", "?!"])
def test_a_migration_says_what_it_does(message: str) -> None:
    result = CliRunner().invoke(main, ["migration", message])
    assert result.exit_code == 2
    assert 'say what it does, as in "add tags"' in result.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], env_template), (["--production"], production_template), (["--page"], settings_page)],
)
def test_env_prints_the_template(options: list[str], expected: Callable[[], str]) -> None:
    result = CliRunner().invoke(main, ["env", *options])
    assert (result.exit_code, result.stdout) == (0, expected())


def test_openapi_and_routes_need_no_database() -> None:
    document = json.loads(CliRunner().invoke(main, ["openapi"]).stdout)
    assert "/health/ready" in document["paths"]
    assert "GET     /health/ready " in CliRunner().invoke(main, ["routes"]).stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder to run in, as a fresh clone is: no data, no `.env`."""
    (tmp_path / "src").mkdir()
    return tmp_path


def test_dev_needs_nothing_keeps_its_data_and_leaves_nothing_running(project: Path) -> None:
    env = {**environment(""), "ENVIRONMENT": "development", "LOG_FORMAT": "json"}
    env.pop("DATABASE_URL")
    with Service([*APP, "dev"], env, folder=project) as service:
        service.wait_until_ready()
        assert ("migrated" in service.messages()) == (load_revisions().head is not None)
        (listening,) = (line for line in service.lines if line["message"] == "listening")
        assert listening["docs"] == f"{service.url}/docs"
        (project / "src" / "new.py").touch()
        wait_until(lambda: service.messages().count(STARTED) == 2, doing=service)
        assert "detected changes in 'src/new.py'" in service.stdout
        assert "watchfiles.main" not in service.stdout
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert service.stderr == ""
    assert not (project / ".data" / "postgres" / "postmaster.pid").exists()
    with Service([*APP, "dev", "--no-reload"], env, folder=project) as service:
        service.wait_until_ready()
        assert "migrated" not in service.messages()
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 0
    assert not (project / ".data" / "postgres" / "postmaster.pid").exists()


def test_data_of_another_major_version_is_left_alone(project: Path) -> None:
    data = project / ".data" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("12\n")
    env = {**environment(""), "ENVIRONMENT": "development"}
    result = subprocess.run(
        [*APP, "dev"], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "was made by PostgreSQL 12" in result.stderr
    assert "move it away" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [file.name for file in data.iterdir()] == ["PG_VERSION"]
