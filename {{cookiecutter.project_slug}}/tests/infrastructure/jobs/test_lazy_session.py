"""Sessions of jobs."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import QueuePool, select, text
from sqlalchemy.exc import DBAPIError

from app.db.session import Database, after_commit, open_database
from app.errors import Unavailable
from app.jobs.lazy_session import LazySessions
from conftest import settings_for
from sql import fetch

INSERT = text("INSERT INTO _test_words VALUES (:word)")
WORDS = text("SELECT word FROM _test_words ORDER BY word")


@pytest.fixture
async def database(empty_database: str) -> AsyncIterator[Database]:
    settings = settings_for(empty_database, database_pool_size=1, database_pool_timeout_seconds=0.2)
    async with open_database(settings) as database:
        await fetch_none(database, "CREATE TABLE _test_words (word text)")
        yield database


async def fetch_none(database: Database, statement: str) -> None:
    async with database.session() as session:
        await session.execute(text(statement))


async def words(database: Database) -> list[str]:
    return [row["word"] for row in await fetch(database, WORDS)]


async def test_session_without_a_statement_takes_no_connection(database: Database) -> None:
    pool = database.engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    async with LazySessions(database).open() as session:
        assert pool.checkedin() == 1
        await session.execute(select(1))
        assert pool.checkedin() == 0
    assert pool.checkedin() == 1


async def test_open_session_counts_in_the_limiter(database: Database) -> None:
    sessions = LazySessions(database)
    async with sessions.open():
        with pytest.raises(Unavailable):
            await fetch(database, select(1))
        with pytest.raises(Unavailable):
            async with sessions.open():
                pass
    assert database.limiter.in_use == 0


async def test_transaction_is_committed_at_the_end_and_callbacks_follow(database: Database) -> None:
    seen: list[list[str]] = []

    async def record() -> None:
        seen.append(await words(database))

    async with LazySessions(database).open() as session:
        after_commit(session, record)
        for word in "ab":
            await session.execute(INSERT, {"word": word})
    assert seen == [["a", "b"]]


async def test_error_rolls_back_the_transaction(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with LazySessions(database).open() as session:
            await session.execute(INSERT, {"word": "lost"})
            raise RuntimeError
    assert await words(database) == []
    assert database.limiter.in_use == 0


async def test_commit_of_an_aborted_transaction_raises(database: Database) -> None:
    """PostgreSQL answers COMMIT after an error with ROLLBACK, and reports no error."""
    with pytest.raises(DBAPIError, match="transaction is aborted"):
        async with LazySessions(database).open() as session:
            await session.execute(INSERT, {"word": "lost"})
            with contextlib.suppress(DBAPIError):
                await session.execute(text("SELECT 1 / 0"))
    async with LazySessions(database).open() as session:
        await session.execute(INSERT, {"word": "kept"})
    assert await words(database) == ["kept"]


async def test_transaction_with_a_rolled_back_savepoint_is_committed(database: Database) -> None:
    async with LazySessions(database).open() as session:
        await session.execute(INSERT, {"word": "kept"})
        with contextlib.suppress(DBAPIError):
            async with session.begin_nested():
                await session.execute(text("SELECT 1 / 0"))
    assert await words(database) == ["kept"]


async def test_statement_without_a_database_is_unavailable() -> None:
    url = "postgresql://postgres@127.0.0.1:1/postgres"
    async with open_database(settings_for(url)) as database:
        with pytest.raises(Unavailable):
            async with LazySessions(database).open() as session:
                await session.execute(select(1))
