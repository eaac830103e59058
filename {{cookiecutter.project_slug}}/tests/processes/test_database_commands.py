"""`app psql`, `app db` and `app dev`, on an embedded PostgreSQL."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.db.schema_version import load_revisions
from clusters import copy_cluster, fast_folder
from conftest import MAIL_OF_PRODUCTION  # option: accounts
from postgres_server import Postgres
from processes import (
    RESERVED,
    ROOT,
    Finished,
    Service,
    add_feature,
    add_migration,
    environment,
    get,
    run,
    wait_until,
)

STARTED = "Application startup complete."
BEHIND = "unapplied migrations: run `uv run app migrate`"
NEXT = """
from alembic import op


def upgrade() -> None:
    op.execute("CREATE TABLE _test_next (id bigint)")


def downgrade() -> None:
    op.execute("DROP TABLE _test_next")
"""
READ = """

def create_app_with_a_route(settings, build=create_app):
    from app.web.dependencies import ReadSession
    from sqlalchemy import text

    app = build(settings)

    @app.get("/_test/next")
    async def read_next(session: ReadSession) -> int:
        return await session.scalar(text("SELECT count(*) FROM _test_next")) or 0

    return app


create_app = create_app_with_a_route
"""
SEED = """
async def seed(_database):
    return 1
"""
# Prints its arguments and the variables of the connection, and fails.
STAND_IN = """#!/bin/sh
printf '%s\\n' "$#" "$@" "$PGHOST" "$PGPORT" "$PGUSER" "$PGPASSWORD" "$PGDATABASE" "$PGSERVICE"
exit 7
"""


class Project:
    """A folder with the data of an embedded PostgreSQL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "src"
        self.data = folder / ".data" / "postgres"

    def copy_source(self) -> None:
        """Copy the source, for a test that changes it. The commands use the copy."""
        shutil.copytree(ROOT / "src", self.source)

    @property
    def env(self) -> dict[str, str]:
        env = environment("", ENVIRONMENT="development", LOG_FORMAT="json")
        del env["DATABASE_URL"]
        return env | ({"PYTHONPATH": str(self.source)} if self.source.exists() else {})

    def app(self, *arguments: str, **variables: str) -> Finished:
        return run(["app", *arguments], self.env | variables, self.folder)

    def sql(self, statement: str, **variables: str) -> str:
        arguments = ["-X", "-v", "ON_ERROR_STOP=1", "-Atc", statement]
        result = self.app("psql", *arguments, **variables)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()


@pytest.fixture
def project() -> Iterator[Project]:
    """Yield a project outside of `tmp_path`: pytest locks its folders while PostgreSQL starts."""
    with TemporaryDirectory(
        dir=fast_folder(), prefix="test-db-", ignore_cleanup_errors=True
    ) as folder:
        yield Project(Path(folder))


@pytest.fixture
def served(project: Project, postgres_server: Postgres) -> Project:
    """Return a project whose embedded server is running, so that commands join it.

    Its data are those of the server of this worker: the start of another one takes a second.
    """
    project.data.parent.mkdir()
    project.data.symlink_to(postgres_server.data)
    return project


def test_psql_of_the_embedded_postgres_gets_arguments_and_returns_the_exit_code(
    served: Project, tmp_path: Path
) -> None:
    names = (
        "current_user, current_database(), split_part(current_setting('server_version'), '.', 1)"
    )
    no_psql = {"PATH": str(tmp_path)}
    assert served.sql(f"SELECT {names}", **no_psql) == "postgres|postgres|18"
    failed = served.app("psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "SELECT 1 / 0")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.strip() == "ERROR:  division by zero"
    (served.folder / "wrong.sql").write_text("SELECT 1 / 0;\n")
    assert served.app("psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", "wrong.sql").returncode == 3
    other = served.app("psql", "-X", "-At", "-c", "SELECT current_database()", "template1")
    assert other.stdout == "template1\n"
    assert "psql" in served.app("psql", "--version").stdout


def test_ctrl_c_ends_the_statement_of_psql_and_leaves_no_traceback(served: Project) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'"
    command = ["app", "psql", "-X", "-c", "SELECT pg_sleep(600)"]
    with Service(command, served.env, served.folder) as service:
        wait_until(lambda: served.sql(waiting) == "1", doing=service)
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.wait() == 1
        assert "canceling statement due to user request" in service.stderr
        assert "Traceback" not in service.stderr
        assert "Aborted" not in service.stderr


def test_psql_on_a_given_server_gets_the_password_in_its_environment_only(
    project: Project, tmp_path: Path
) -> None:
    psql = tmp_path / "psql"
    psql.write_text(STAND_IN)
    psql.chmod(0o755)
    url = "postgresql+asyncpg://someone:p@ss w@db.example.com:5433/app"
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PGSERVICE": "other", "DATABASE_URL": url}
    result = project.app("psql", "-c", "SELECT 1", "--echo-all", **variables)
    assert (result.returncode, result.stderr) == (7, "")
    expected = ["3", "-c", "SELECT 1", "--echo-all"]
    expected += ["db.example.com", "5433", "someone", "p@ss w", "app", ""]
    assert result.stdout.splitlines() == expected

    psql.unlink()
    missing = project.app("psql", **{**variables, "PATH": str(tmp_path)})
    assert missing.returncode == 1
    assert missing.stderr == ("Error: psql is not installed: install the client of PostgreSQL\n")


def test_url_that_db_url_prints_is_that_of_the_database(project: Project) -> None:
    given = "postgresql+asyncpg://someone:p@ss@db.example.com/app?pgbouncer=true"
    result = project.app("db", "url", DATABASE_URL=given)
    assert result.stdout == "postgresql://someone:p%40ss@db.example.com/app\n"


def test_reset_replaces_the_embedded_database_and_adds_example_data(served: Project) -> None:
    served.copy_source()
    for seed in (served.source / "app" / "features").glob("*/seed.py"):
        seed.write_text(SEED)
    add_feature(served.source, "seed", SEED)
    served.sql("CREATE TABLE _test_old (id bigint)")
    result = served.app("db", "reset")
    assert result.returncode == 0, result.stdout + result.stderr
    assert served.sql("SELECT to_regclass('_test_old')") == ""
    assert served.sql("SELECT version_num FROM alembic_version") == (load_revisions().head or "")
    assert served.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'reset%'") == "0"
    seeded = served.app("db", "reset", "--seed")
    assert seeded.returncode == 0, seeded.stdout + seeded.stderr
    assert int(seeded.stdout.splitlines()[-1].removesuffix(" rows added")) >= 1


def test_reset_asks_before_it_drops_a_database_of_another_machine(project: Project) -> None:
    url = "postgresql://u:hunter2@db.invalid/app"
    asked = project.app("db", "reset", DATABASE_URL=url)
    assert asked.returncode == 1
    assert "Drop the database app of db.invalid? [y/N]" in asked.stdout
    assert asked.stderr.strip() == "Aborted!"
    tried = project.app("db", "reset", "--yes", DATABASE_URL=url)
    assert tried.returncode == 1
    assert '"not reset"' in tried.stdout
    assert "hunter2" not in tried.stdout + tried.stderr


def test_reset_in_production_is_refused(project: Project) -> None:
    values = {
        "ENVIRONMENT": "production",
        "ALLOWED_HOSTS": "api.example.com",
        "DATABASE_URL": "postgresql://app:f8Zk2q@db.invalid/app",
    }
    values["AUTH_KEYS"] = "2026-11:Zq7wN1cT0pVxK4mB8sRj2LdYhU6gEaFo"  # option: accounts
    values |= {k.upper(): v for k, v in MAIL_OF_PRODUCTION.items()}  # option: accounts
    values["OIDC_ISSUER"] = "https://login.example.com"  # option: oidc
    values["OIDC_AUDIENCE"] = "https://api.example.com"  # option: oidc
    result = project.app("db", "reset", "--force", **values)
    assert result.returncode == 1
    assert '"not reset","reason":"ENVIRONMENT is production' in result.stdout


def test_dev_prints_the_url_and_warns_after_a_reload_until_the_database_is_migrated(
    project: Project,
) -> None:
    copy_cluster(project.data)
    project.copy_source()
    main = project.source / "app" / "main.py"
    main.write_text(main.read_text() + READ)
    with Service(["app", "dev"], project.env, project.folder) as service:
        service.wait_until_ready()
        (line,) = (line for line in service.lines if line["message"] == "database")
        assert line["url"].startswith("postgresql://postgres@/postgres?host=")
        assert line["psql"] == "uv run app psql"
        url = project.app("db", "url")
        assert (url.stdout, url.stderr) == (f"{line['url']}\n", "")
        assert BEHIND not in service.messages()

        add_migration(project.source, NEXT)
        wait_until(lambda: service.messages().count(STARTED) == 2, doing=service)
        (warning,) = (line for line in service.lines if line["message"] == BEHIND)
        assert warning["code"] == RESERVED
        response = get(f"{service.url}/_test/next")
        assert response.status_code == 500
        assert '_test_next"' not in response.text
        errors = [line for line in service.lines if line["level"] == "error"]
        (error,) = (line for line in errors if line.get("reason", "").startswith("relation "))
        assert error["reason"] == 'relation "_test_next" does not exist'
        assert error["place"].startswith(str(main))
        assert "Traceback" not in service.stdout

        refused = project.app("db", "reset")
        assert refused.returncode == 1
        assert "stop `app dev`" in refused.stdout
        assert project.app("migrate").returncode == 0
        assert get(f"{service.url}/_test/next").json() == 0
        (project.source / "new.py").touch()
        wait_until(lambda: service.messages().count(STARTED) == 3, doing=service)
        assert "detected changes in 'src/new.py'" in service.stdout
        assert "watchfiles.main" not in service.stdout
        assert service.messages().count(BEHIND) == 1

        forced = project.app("db", "reset", "--force")
        assert forced.returncode == 0, forced.stdout
        wait_until(lambda: get(f"{service.url}/_test/next").status_code == 200, doing=service)
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    assert not (project.data / "postmaster.pid").exists(), "the service stops the server"
    assert project.sql("SELECT count(*) FROM _test_next") == "0", "`app psql` starts it"
