import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from alembic.script import ScriptDirectory
from click.testing import CliRunner

from app.cli import main
from app.db.schema_version import MIGRATIONS, load_revisions, next_number
from app.settings_docs import env_template, production_template, settings_page
from clusters import fast_folder
from processes import (
    RESERVED,
    ROOT,
    Finished,
    Service,
    add_feature,
    add_migration,
    add_model,
    environment,
    run,
)

COMMANDS = ["check", "db", "dev", "env", "migrate", "migration", "openapi", "psql", "routes"]
COMMANDS += ["seed", "serve"]
COMMANDS += ["worker", "jobs"]  # option: worker
SEED = """
async def seed(_database):
    return {rows}
"""


def app(*arguments: str, **variables: str) -> Finished:
    return app_in(ROOT, *arguments, **variables)


def app_in(folder: Path, *arguments: str, **variables: str) -> Finished:
    env = environment(variables.pop("DATABASE_URL", ""), **variables)
    return run(["app", *arguments], env, folder)


def test_check_without_problems_reports_every_part_and_exits_0(database_url: str) -> None:
    result = app("check", DATABASE_URL=database_url, LOG_LEVEL="error")
    assert result.returncode == 0, result.stderr
    report = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["settings", "ok"] in report
    assert ["database", "ok"] in report
    assert ["migrations", "ok"] in report
    assert "redis" not in [line[0] for line in report]  # option: redis


def test_check_with_problems_reports_them_and_exits_1(empty_database: str, source: Path) -> None:
    newer = add_migration(source, "")
    result = app("check", DATABASE_URL=empty_database, **newer)
    assert result.returncode == 1
    assert "migrations  failed  MigrationError: the database is at no revision" in result.stdout
    assert "run `app migrate`" in result.stdout
    result = app("check", DATABASE_URL="postgresql://u:p@127.0.0.1:1/x")
    assert result.returncode == 1
    assert "database    failed" in result.stdout
    assert "ConnectionRefusedError" in result.stdout
    assert "{" not in result.stdout  # no log line that says it again


def test_migrate_with_an_error_in_a_migration_reports_one_line_with_its_place(
    empty_database: str, source: Path
) -> None:
    text = "\ndef upgrade():\n    nowhere()\n"
    result = app("migrate", DATABASE_URL=empty_database, **add_migration(source, text))
    assert result.returncode == 1
    assert f"name 'nowhere' is not defined ({RESERVED}.py, line 5)" in result.stdout
    assert "Traceback" not in result.stdout


def test_help_has_a_whole_sentence_for_each_command() -> None:
    lines = CliRunner().invoke(main, ["--help"]).stdout.partition("Commands:")[2].splitlines()
    sentences = {line.split()[0]: line for line in lines if line.strip()}
    for command in COMMANDS:
        assert sentences[command].endswith("."), command
        assert not sentences[command].endswith("..."), command


def test_check_with_wrong_settings_exits_2() -> None:
    result = CliRunner().invoke(main, ["check"], env={"PORT": "http"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("settings: PORT: ")


def test_migrate_in_production_without_database_url_is_refused() -> None:
    production = {"ENVIRONMENT": "production", "ALLOWED_HOSTS": "api.example.com"}
    result = CliRunner().invoke(main, ["migrate"], env=production)
    assert result.exit_code == 2
    assert "settings: DATABASE_URL is missing: " in result.stderr


def test_seed_migrates_and_reports_the_rows_of_every_feature(
    empty_database: str, source: Path
) -> None:
    for seed in (source / "app" / "features").glob("*/seed.py"):
        seed.write_text(SEED.format(rows=0))
    add_feature(source, "seed", SEED.format(rows=3))
    result = app("seed", DATABASE_URL=empty_database, PYTHONPATH=str(source))
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "3 rows added")
    again = app("migrate", DATABASE_URL=empty_database, PYTHONPATH=str(source))
    assert again.returncode == 0
    assert "the database is at the last migration" in again.stdout


def test_migration_writes_the_difference_and_reports_an_empty_one(
    empty_database: str, source: Path
) -> None:
    copy = {"DATABASE_URL": empty_database, "PYTHONPATH": str(source)}
    number = int(next_number(ScriptDirectory(MIGRATIONS)))
    versions = source / "app" / "migrations" / "versions"
    shutil.copy(ROOT / "pyproject.toml", source.parent)
    add_model(source)
    result = app_in(source.parent, "migration", "reserved for tests", **copy)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    written = versions / f"{number:04d}_{RESERVED}.py"
    assert 'op.create_table(\n        "_test_notes"' in written.read_text()
    assert str(written) in result.stdout
    assert "so the migration is empty" not in result.stdout

    again = app_in(source.parent, "migration", "reserved for tests, too", **copy)
    assert again.returncode == 0, again.stderr
    assert "models and database agree, so the migration is empty" in again.stdout
    assert app("migrate", **copy).returncode == 0

    before = list((ROOT / "src/app/migrations/versions").iterdir())
    other_branch = app("migration", "reserved for tests", DATABASE_URL=empty_database)
    assert other_branch.returncode == 1
    reason = json.loads(other_branch.stdout)["reason"]
    assert reason.startswith(f"the database is at {number + 1:04d}, which this code does not have:")
    assert list((ROOT / "src/app/migrations/versions").iterdir()) == before


@pytest.mark.parametrize("message", ["", "?!"])
def test_migration_without_a_message_is_refused(message: str) -> None:
    result = CliRunner().invoke(main, ["migration", message])
    assert result.exit_code == 2
    assert 'MESSAGE describes the change, for example "add notes"' in result.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], env_template), (["--production"], production_template), (["--page"], settings_page)],
)
def test_env_with_each_option_prints_its_form(
    options: list[str], expected: Callable[[], str]
) -> None:
    result = CliRunner().invoke(main, ["env", *options])
    assert (result.exit_code, result.stdout) == (0, expected())


def test_env_write_prints_each_file_and_needs_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["env", "--write"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(": run this in the folder of the project\n")
    (tmp_path / ".env.example").write_text(env_template())
    result = CliRunner().invoke(main, ["env", "--write"])
    assert result.stdout.splitlines() == [
        ".env.example              unchanged",
        ".env.production.template  changed",
        "docs/settings.md          changed",
    ]


def test_openapi_and_routes_without_a_database_succeed() -> None:
    document = json.loads(CliRunner().invoke(main, ["openapi"]).stdout)
    assert "/health/ready" in document["paths"]
    assert "GET     /health/ready " in CliRunner().invoke(main, ["routes"]).stdout


@pytest.fixture
def project() -> Iterator[Path]:
    """Yield a folder without data and without `.env`.

    It is outside of `tmp_path`: pytest locks its folders while PostgreSQL starts.
    """
    with TemporaryDirectory(
        dir=fast_folder(), prefix="test-cli-", ignore_cleanup_errors=True
    ) as folder:
        Path(folder, "src").mkdir()
        yield Path(folder)


def test_check_with_an_unknown_variable_in_env_file_reports_it_and_exits_1(
    database_url: str, project: Path
) -> None:
    (project / ".env").write_text(
        "DATABSE_URL=postgresql://x/y\n_TEST_UNKNOWN=1\nIMAGE_TAG=first\n"
    )
    result = app_in(project, "check", DATABASE_URL=database_url)
    assert result.returncode == 1
    hint = ".env has DATABSE_URL, which no setting reads: did you mean DATABASE_URL?"
    assert result.stdout.splitlines()[:2] == [
        f"settings    failed  {hint}",
        "settings    failed  .env has _TEST_UNKNOWN, which no setting reads",
    ]
    assert "{" not in result.stdout
    (project / ".env").write_text("IMAGE_TAG=first\n")
    assert app_in(project, "check", DATABASE_URL=database_url).returncode == 0


def test_migrate_with_an_unknown_variable_in_env_file_warns_and_succeeds(
    database_url: str, project: Path
) -> None:
    (project / ".env").write_text("DATABSE_URL=postgresql://x/y\nIMAGE_TAG=first\n")
    result = app_in(project, "migrate", DATABASE_URL=database_url)
    assert result.returncode == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    (warning,) = (line for line in lines if line["message"] == "unknown variable")
    assert warning["level"] == "warn"
    assert warning["reason"] == (
        ".env has DATABSE_URL, which no setting reads: did you mean DATABASE_URL?"
    )


def test_dev_without_settings_keeps_its_data_and_stops_its_servers(project: Path) -> None:
    env = {**environment(""), "ENVIRONMENT": "development", "LOG_FORMAT": "json"}
    env.pop("DATABASE_URL")
    with Service(["app", "dev"], env, folder=project) as service:
        service.wait_until_ready()
        assert ("migrated" in service.messages()) == (load_revisions().head is not None)
        (listening,) = (line for line in service.lines if line["message"] == "listening")
        assert listening["docs"] == f"{service.url}/docs"
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert service.stderr == ""
    assert not (project / ".data" / "postgres" / "postmaster.pid").exists()
    with Service(["app", "dev", "--no-reload"], env, folder=project) as service:
        service.wait_until_ready()
        assert "migrated" not in service.messages()
        service.process.send_signal(signal.SIGINT)
        assert service.wait() == 0
    assert not (project / ".data" / "postgres" / "postmaster.pid").exists()


def test_dev_with_data_of_another_major_version_changes_nothing(project: Path) -> None:
    data = project / ".data" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("12\n")
    env = {**environment(""), "ENVIRONMENT": "development"}
    result = run(["app", "dev"], env, project)
    assert result.returncode == 1
    assert "was created by PostgreSQL 12" in result.stderr
    assert "move the folder away" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [file.name for file in data.iterdir()] == ["PG_VERSION"]
