from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.development import warn_of_unapplied_migrations
from app.db.schema_version import MigrationError, Revisions
from app.db.session import open_database
from app.settings import Settings
from app.web.dependencies import Session
from conftest import Lines, running, settings_for
from small_app import create_small_app

CODE = Revisions(head="0002", known=frozenset({"0001", "0002"}))


async def warnings(settings: Settings, lines: Lines) -> list[tuple[str, str]]:
    async with open_database(settings) as database:
        await warn_of_unapplied_migrations(database)
    return [(line["level"], line["message"]) for line in lines()]


async def test_database_behind_the_code_is_a_warning_with_the_command(
    empty_database: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(empty_database)
    monkeypatch.setattr("app.db.development.load_revisions", lambda: CODE)
    expected = [("warn", "unapplied migrations: run `uv run app migrate`")]
    assert await warnings(settings, lines) == expected


async def test_database_at_the_last_migration_is_no_warning(
    settings: Settings, lines: Lines
) -> None:
    assert await warnings(settings, lines) == []


async def test_migrations_that_cannot_be_checked_are_a_warning(
    settings: Settings, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [("warn", "the migrations were not checked")]
    assert await warnings(settings_for("postgresql://u:p@127.0.0.1:1/x"), lines) == expected

    def fail() -> Revisions:
        raise MigrationError("the migrations have several heads")

    monkeypatch.setattr("app.db.development.load_revisions", fail)
    assert await warnings(settings, lines) == expected


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT id FROM _test_missing", 'relation "_test_missing" does not exist'),
        ("SELECT t._test_column FROM pg_class AS t", "column t._test_column does not exist"),
    ],
)
async def test_request_that_needs_a_missing_table_or_column_logs_one_line_in_development(
    database_url: str, lines: Lines, statement: str, reason: str
) -> None:
    for environment in ("development", "test"):
        app = create_small_app(
            settings_for(database_url, environment=environment), with_database=True
        )

        @app.get("/_test/read")
        async def read(session: Session) -> None:
            await session.execute(text(statement))

        async with running(app) as client:
            response = await client.get("/_test/read")
        assert (response.status_code, response.json()["type"]) == (500, "about:blank")
        assert "_test_" not in response.text
        failure, request = lines()
        assert request["status"] == 500
        if environment == "test":
            assert failure["message"] == "unhandled exception"
            assert "Traceback" in failure["exception"]
            continue
        assert failure["message"] == "the database does not have what a statement uses"
        assert failure["level"] == "error"
        assert failure["reason"] == reason
        assert "uv run app migrate" in failure["hint"]
        assert 'uv run app migration "' in failure["hint"]
        assert "exception" not in failure
        file, _, line = failure["place"].rpartition(":")
        assert Path(file).is_file()
        assert line.isdigit()
