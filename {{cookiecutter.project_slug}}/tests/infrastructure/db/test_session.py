import asyncio
import contextlib
import time
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy import cast, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, InvalidRequestError, StatementError
from sqlalchemy.orm import Mapped, mapped_column
from starlette.types import Message

from app.db.model import Model
from app.db.session import Database, after_commit, open_database
from app.errors import Unavailable
from app.settings import Settings
from app.web.dependencies import DatabaseDep, Session
from conftest import Lines, running, settings_for
from postgres_server import Postgres
from processes import HANG_SECONDS
from small_app import create_small_app
from sql import fetch

INSERT = text("INSERT INTO _test_words (word) VALUES (:word) RETURNING word")
FAIL_AT_COMMIT = (
    """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
       AS $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$""",
    """CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON _test_words
       DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()""",
)
WORDS = text("SELECT word FROM _test_words ORDER BY word")


@pytest.fixture
async def database(empty_database: str) -> Any:
    async with open_database(settings_for(empty_database)) as database:
        async with database.session() as session:
            await session.execute(text("CREATE TABLE _test_words (word text)"))
        yield database


async def test_parameter_of_a_wrong_type_is_not_taken_for_an_outage(database: Database) -> None:
    with pytest.raises(StatementError, match="not JSON serializable"):
        async with database.session() as session:
            await session.execute(select(cast({"id": object()}, JSONB)))
    async with database.session() as session:
        await session.execute(INSERT, {"word": "a"})
    assert await words(database) == ["a"]


async def words(database: Database) -> list[str]:
    return [row["word"] for row in await fetch(database, WORDS)]


def app_with_routes(settings: Settings) -> FastAPI:
    """Return an application with routes that write, fail and wait."""
    app = create_small_app(settings, with_database=True)

    @app.post("/_test/write")
    async def write(session: Session, word: str) -> str:
        row = await fetch(session, INSERT, {"word": word})
        return str(row[0]["word"])

    @app.post("/_test/write-and-fail")
    async def write_and_fail(session: Session) -> str:
        await fetch(session, INSERT, {"word": "lost"})
        raise RuntimeError("after the write")

    @app.get("/_test/sleep")
    async def sleep(database: DatabaseDep) -> int:
        await fetch(database, text("SELECT pg_sleep(30)"))
        return 1

    return app


async def test_failing_commit_returns_500(database: Database, empty_database: str) -> None:
    async with database.session() as session:
        for statement in FAIL_AT_COMMIT:
            await session.execute(text(statement))
    async with running(app_with_routes(settings_for(empty_database))) as client:
        response = await client.post("/_test/write", params={"word": "refused"})
    assert response.status_code == 500
    assert await words(database) == []


async def test_row_is_committed_before_the_response_starts(
    database: Database, empty_database: str
) -> None:
    app = app_with_routes(settings_for(empty_database))
    seen: list[list[str]] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.append(await words(database))

    async with app.router.lifespan_context(app) as state:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/_test/write",
            "query_string": b"word=kept",
            "headers": [(b"host", b"testserver")],
            "scheme": "http",
            "root_path": "",
            "state": dict(state or {}),
        }
        await app(scope, receive, send)
    assert seen == [["kept"]]


async def test_read_session_refuses_to_write(database: Database) -> None:
    class WordOfThisTest(Model):
        __tablename__ = "_test_words"
        word: Mapped[str] = mapped_column(primary_key=True)

    try:
        async with database.read_session() as session:
            assert (await session.scalars(select(WordOfThisTest))).all() == []
            session.add(WordOfThisTest(word="lost"))
            with pytest.raises(InvalidRequestError, match="use Session instead"):
                await session.flush()
        async with database.session() as session:
            session.add(WordOfThisTest(word="kept"))
        assert await words(database) == ["kept"]
    finally:
        Model.metadata.remove(WordOfThisTest.metadata.tables["_test_words"])


async def test_terminated_connection_is_unavailable(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.session() as session:
            pid = (await fetch(session, text("SELECT pg_backend_pid()")))[0]
            await fetch(database, text(f"SELECT pg_terminate_backend({pid['pg_backend_pid']})"))
            await session.execute(text("SELECT 1"))


async def test_statement_over_the_client_timeout_is_unavailable(empty_database: str) -> None:
    """Behind a transaction pooler, the client enforces the timeout."""
    settings = settings_for(
        empty_database,
        database_unpooled_url=empty_database,
        database_statement_timeout_seconds=0.1,
    )
    async with open_database(settings) as database:
        with pytest.raises(Unavailable):
            async with database.session() as session:
                await session.execute(text("SELECT pg_sleep(30)"))
        with pytest.raises(TimeoutError, match="of the caller"):
            async with database.session():
                raise TimeoutError("of the caller")


async def test_commit_of_an_aborted_transaction_raises(database: Database) -> None:
    """PostgreSQL answers COMMIT after an error with ROLLBACK, and reports no error."""
    calls: list[str] = []

    async def record() -> None:
        calls.append("called")

    with pytest.raises(DBAPIError, match="transaction is aborted"):
        async with database.session() as session:
            after_commit(session, record)
            await fetch(session, INSERT, {"word": "lost"})
            with contextlib.suppress(DBAPIError):
                await fetch(session, text("SELECT 1 / 0"))
    assert await words(database) == []
    assert calls == []


async def test_transaction_with_a_rolled_back_savepoint_is_committed(database: Database) -> None:
    async with database.session() as session:
        await fetch(session, INSERT, {"word": "kept"})
        with contextlib.suppress(DBAPIError):
            async with session.begin_nested():
                await fetch(session, text("SELECT 1 / 0"))
    async with database.session() as session:  # on the same connection
        await fetch(session, INSERT, {"word": "kept, too"})
    assert await words(database) == ["kept", "kept, too"]


async def test_connection_cancelled_in_begin_is_not_reused(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a cancelled BEGIN, asyncpg would begin every transaction with a savepoint."""
    settings = settings_for(
        empty_database, database_pool_size=1, database_statement_timeout_seconds=0.1
    )
    execute = asyncpg.Connection.execute

    async def cancelled(connection: asyncpg.Connection, statement: str) -> str:
        assert statement.startswith("BEGIN")
        return str(await execute(connection, "SELECT pg_sleep(30)"))

    async with open_database(settings) as database:
        await fetch(database, select(1))  # opens the connection, which runs statements of its own
        with monkeypatch.context() as patched:
            patched.setattr(asyncpg.Connection, "execute", cancelled)
            with pytest.raises(Unavailable):
                async with database.session() as session:
                    await fetch(session, select(1))
        async with database.session() as session:
            assert len(await fetch(session, select(1))) == 1


async def test_error_rolls_back_the_transaction(database: Database, empty_database: str) -> None:
    async with running(app_with_routes(settings_for(empty_database))) as client:
        response = await client.post("/_test/write-and-fail")
    assert response.status_code == 500
    assert "after the write" not in response.text
    assert await words(database) == []


async def test_callbacks_run_after_a_commit_and_not_after_a_rollback(database: Database) -> None:
    seen: list[list[str]] = []

    async def record() -> None:
        seen.append(await words(database))

    with pytest.raises(RuntimeError):
        async with database.session() as session:
            after_commit(session, record)
            raise RuntimeError
    assert seen == []
    async with database.session() as session:
        after_commit(session, record)
        await fetch(session, INSERT, {"word": "seen"})
    assert seen == [["seen"]]


async def fail() -> None:
    raise RuntimeError("in the callback")


async def test_failing_callback_is_logged_and_the_next_one_runs(
    database: Database, lines: Lines
) -> None:
    calls: list[str] = []

    async def record() -> None:
        calls.append("called")

    async with database.session() as session:
        for callback in (fail, record):
            after_commit(session, callback)
        await fetch(session, INSERT, {"word": "kept"})
    assert calls == ["called"]
    assert await words(database) == ["kept"]
    (line,) = lines()
    assert (line["message"], line["level"]) == ("after-commit callback failed", "error")
    assert "in the callback" in str(line["exception"])


async def test_request_with_a_failing_callback_succeeds(
    database: Database, empty_database: str
) -> None:
    app = app_with_routes(settings_for(empty_database))

    @app.post("/_test/write-with-callback")
    async def write_with_callback(session: Session) -> None:
        after_commit(session, fail)
        await fetch(session, INSERT, {"word": "kept"})

    async with running(app) as client:
        assert (await client.post("/_test/write-with-callback")).status_code == 200
    assert await words(database) == ["kept"]


async def test_statement_over_the_timeout_returns_503_with_retry_after(empty_database: str) -> None:
    settings = settings_for(empty_database, database_statement_timeout_seconds=0.2)
    async with running(app_with_routes(settings)) as client:
        response = await client.get("/_test/sleep")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.json()["title"] == "Service Unavailable"


async def test_exhausted_pool_is_unavailable_after_the_limit(empty_database: str) -> None:
    settings = settings_for(empty_database, database_pool_size=1, database_pool_timeout_seconds=0.2)
    async with open_database(settings) as database, database.session():
        with pytest.raises(Unavailable) as caught:
            await fetch(database, select(1))
    assert str(caught.value.__cause__) == "no connection was free within 0.2 s"


async def has_recovered(database: Database) -> bool:
    """Return whether a read succeeds; a busy machine may need several attempts."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            with contextlib.suppress(Unavailable):
                return len(await fetch(database, select(1))) == 1
            await asyncio.sleep(0.1)


async def test_outage_is_unavailable_and_recovers_without_a_restart(postgres: Postgres) -> None:
    settings = settings_for(postgres.url, database_statement_timeout_seconds=0.5)
    async with open_database(settings) as database:
        assert await has_recovered(database)
        postgres.stop()
        with pytest.raises(Unavailable):
            await fetch(database, select(1))
        with pytest.raises(Unavailable):
            async with database.session():
                pass
        postgres.start()
        assert await has_recovered(database)

        postgres.freeze()
        async with asyncio.timeout(HANG_SECONDS):  # the client gives up by itself
            with pytest.raises(Unavailable):
                await fetch(database, select(1))
        postgres.thaw()
        assert await has_recovered(database)


async def test_connections_to_a_frozen_server_are_closed_in_time(postgres: Postgres) -> None:
    async with open_database(settings_for(postgres.url)) as database:
        drivers = []
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                connection = await stack.enter_async_context(database.read_connection())
                drivers.append((await connection.get_raw_connection()).driver_connection)
        postgres.freeze()
        started = time.monotonic()
    assert time.monotonic() - started < 3 * 5.5  # each of the three would take 5.5 s
    for driver in drivers:  # the service leaves them to the end of its process
        assert driver is not None
        driver.terminate()
    postgres.thaw()


async def test_invalid_statement_is_not_an_outage(database: Database) -> None:
    with pytest.raises(Exception, match="does not exist"):
        await fetch(database, text("SELECT nothing FROM _test_nowhere"))
