import asyncio
import contextlib
import time
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Mapped, mapped_column
from starlette.types import Message

from app.db.model import Model
from app.db.session import Database, after_commit, open_database
from app.errors import Unavailable
from app.main import create_app
from app.settings import Settings
from app.web.dependencies import DatabaseDep, Session
from conftest import running, settings_for
from processes import own_postgres
from sql import fetch

INSERT = text("INSERT INTO scratch (word) VALUES (:word) RETURNING word")
REFUSE_AT_COMMIT = (
    """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
       AS $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$""",
    """CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON scratch
       DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()""",
)
WORDS = text("SELECT word FROM scratch ORDER BY word")


@pytest.fixture
async def database(empty_database: str) -> Any:
    async with open_database(settings_for(empty_database)) as database:
        async with database.session() as session:
            await session.execute(text("CREATE TABLE scratch (word text)"))
        yield database


async def words(database: Database) -> list[str]:
    return [row["word"] for row in await fetch(database, WORDS)]


def app_of(settings: Settings) -> FastAPI:
    """The service's own application, with routes that write and then fail."""
    app = create_app(settings)

    @app.post("/write")
    async def write(session: Session, word: str) -> str:
        row = await fetch(session, INSERT, {"word": word})
        return str(row[0]["word"])

    @app.post("/write-and-fail")
    async def write_and_fail(session: Session) -> str:
        await fetch(session, INSERT, {"word": "lost"})
        raise RuntimeError("after the write")

    @app.get("/sleep")
    async def sleep(database: DatabaseDep) -> int:
        await fetch(database, text("SELECT pg_sleep(30)"))
        return 1

    return app


async def test_a_failing_commit_is_never_answered_with_success(
    database: Database, empty_database: str
) -> None:
    async with database.session() as session:
        for statement in REFUSE_AT_COMMIT:
            await session.execute(text(statement))
    async with running(app_of(settings_for(empty_database))) as client:
        response = await client.post("/write", params={"word": "refused"})
    assert response.status_code == 500
    assert await words(database) == []


async def test_a_row_is_committed_before_the_first_byte_of_the_answer(
    database: Database, empty_database: str
) -> None:
    app = app_of(settings_for(empty_database))
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
            "path": "/write",
            "query_string": b"word=kept",
            "headers": [(b"host", b"testserver")],
            "scheme": "http",
            "root_path": "",
            "state": dict(state or {}),
        }
        await app(scope, receive, send)
    assert seen == [["kept"]]


async def test_read_session_refuses_to_write(database: Database) -> None:
    class Scratch(Model):
        __tablename__ = "scratch"
        word: Mapped[str] = mapped_column(primary_key=True)

    try:
        async with database.read_session() as session:
            assert (await session.scalars(select(Scratch))).all() == []
            session.add(Scratch(word="lost"))
            with pytest.raises(InvalidRequestError, match="use Session instead"):
                await session.flush()
        async with database.session() as session:
            session.add(Scratch(word="kept"))
        assert await words(database) == ["kept"]
    finally:
        Model.metadata.remove(Scratch.metadata.tables["scratch"])


async def test_an_outage_met_on_the_connection_itself_is_a_503(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.session() as session:
            pid = (await fetch(session, text("SELECT pg_backend_pid()")))[0]
            await fetch(database, text(f"SELECT pg_terminate_backend({pid['pg_backend_pid']})"))
            await session.execute(text("SELECT 1"))


async def test_a_statement_of_the_connection_itself_over_its_time_is_a_503(
    empty_database: str,
) -> None:
    """Behind a pooler it is the client that looks at the clock."""
    settings = settings_for(
        empty_database,
        database_unpooled_url=empty_database,
        database_statement_timeout_seconds=0.1,
    )
    async with open_database(settings) as database:
        with pytest.raises(Unavailable):
            async with database.session() as session:
                await session.execute(text("SELECT pg_sleep(30)"))
        with pytest.raises(TimeoutError, match="of another"):
            async with database.session():
                raise TimeoutError("of another")


async def test_what_postgresql_will_not_commit_is_never_taken_for_committed(
    database: Database,
) -> None:
    """After an error it answers COMMIT with a ROLLBACK, and without a word."""
    seen: list[str] = []

    async def look() -> None:
        seen.append("called")

    with pytest.raises(DBAPIError, match="transaction is aborted"):
        async with database.session() as session:
            after_commit(session, look)
            await fetch(session, INSERT, {"word": "lost"})
            with contextlib.suppress(DBAPIError):
                await fetch(session, text("SELECT 1 / 0"))
    assert (await words(database), seen) == ([], [])


async def test_an_error_behind_a_savepoint_is_no_reason_not_to_commit(database: Database) -> None:
    async with database.session() as session:
        await fetch(session, INSERT, {"word": "kept"})
        with contextlib.suppress(DBAPIError):
            async with session.begin_nested():
                await fetch(session, text("SELECT 1 / 0"))
    async with database.session() as session:  # on the same connection
        await fetch(session, INSERT, {"word": "kept, too"})
    assert await words(database) == ["kept", "kept, too"]


async def test_a_connection_that_could_not_begin_is_not_used_again(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cancelled in its BEGIN: asyncpg would begin by a savepoint ever after."""
    settings = settings_for(
        empty_database, database_pool_size=1, database_statement_timeout_seconds=0.1
    )
    execute = asyncpg.Connection.execute

    async def cancelled(connection: asyncpg.Connection, statement: str) -> str:
        assert statement.startswith("BEGIN")
        return str(await execute(connection, "SELECT pg_sleep(30)"))

    async with open_database(settings) as database:
        await fetch(database, select(1))  # or it would be a connection that is set up
        with monkeypatch.context() as patched:
            patched.setattr(asyncpg.Connection, "execute", cancelled)
            with pytest.raises(Unavailable):
                async with database.session() as session:
                    await fetch(session, select(1))
        async with database.session() as session:
            assert len(await fetch(session, select(1))) == 1


async def test_an_error_rolls_everything_back(database: Database, empty_database: str) -> None:
    async with running(app_of(settings_for(empty_database))) as client:
        response = await client.post("/write-and-fail")
    assert response.status_code == 500
    assert "after the write" not in response.text
    assert await words(database) == []


async def test_callbacks_run_after_the_commit_and_only_then(database: Database) -> None:
    seen: list[list[str]] = []

    async def look() -> None:
        seen.append(await words(database))

    with pytest.raises(RuntimeError):
        async with database.session() as session:
            after_commit(session, look)
            raise RuntimeError
    assert seen == []
    async with database.session() as session:
        after_commit(session, look)
        await fetch(session, INSERT, {"word": "seen"})
    assert seen == [["seen"]]


async def test_a_statement_over_its_time_is_a_503_with_retry_after(empty_database: str) -> None:
    settings = settings_for(empty_database, database_statement_timeout_seconds=0.2)
    async with running(app_of(settings)) as client:
        response = await client.get("/sleep")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.json()["title"] == "Service Unavailable"


async def test_an_exhausted_pool_is_a_quick_503(empty_database: str) -> None:
    settings = settings_for(empty_database, database_pool_size=1, database_pool_timeout_seconds=0.2)
    async with open_database(settings) as database, database.session():
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await fetch(database, select(1))
        assert time.monotonic() - started < 2


async def recovered(database: Database) -> bool:
    """Whether it answers again; with half a second a statement, a busy machine may need a few."""
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(Unavailable):
                return len(await fetch(database, select(1))) == 1
            await asyncio.sleep(0.1)


async def test_an_outage_is_a_503_and_the_service_recovers_without_a_restart() -> None:
    with own_postgres() as server:
        settings = settings_for(server.url, database_statement_timeout_seconds=0.5)
        async with open_database(settings) as database:
            assert await recovered(database)
            server.stop()
            with pytest.raises(Unavailable):
                await fetch(database, select(1))
            with pytest.raises(Unavailable):
                async with database.session():
                    pass
            server.start()
            assert await recovered(database)

            server.freeze()
            started = time.monotonic()
            with pytest.raises(Unavailable):
                await fetch(database, select(1))
            assert time.monotonic() - started < 2  # half a second, and half for the client
            server.thaw()
            await asyncio.sleep(0.1)
            assert await recovered(database)


async def test_a_mistake_in_a_statement_is_no_outage(database: Database) -> None:
    with pytest.raises(Exception, match="does not exist"):
        await fetch(database, text("SELECT nothing FROM nowhere"))
