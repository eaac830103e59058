"""Sessions and connections: one per request, in front of one pool.

Reads run in autocommit: one round trip a statement, and two behind a transaction pooler.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.engine import create_engine
from app.db.limiter import ConnectionLimiter
from app.db.outages import FAILED_STATEMENTS, translate_errors, unavailable
from app.db.settings import DatabaseSettings

PROBE_CONNECTIONS = 2  # checks are short, so a third check can wait
AFTER_COMMIT = "after_commit"  # a key of session.info

Callback = Callable[[], Awaitable[None]]


class ReadOnlySession(Session):
    """The session behind a read session."""


@event.listens_for(ReadOnlySession, "before_flush")
def refuse_flush(*_: object) -> NoReturn:
    raise exc.InvalidRequestError("a read session cannot write: use Session instead")


class Database:
    """The connections to PostgreSQL.

    Attributes:
        engine: for SQLAlchemy's events. The methods connect, because they bound the wait.
        limiter: bounds the connections in use, and the wait for one.
        statement_timeout_seconds: the longest run of one statement.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        size = settings.database_pool_size
        self.statement_timeout_seconds = settings.database_statement_timeout_seconds
        self.limiter = ConnectionLimiter(size, settings.database_pool_timeout_seconds)
        self.engine = create_engine(settings, pool_size=size, autocommit=True)
        translate_errors(self.engine.sync_engine)
        # Probes have connections of their own: a busy pool is not an outage.
        self._probe_engine = create_engine(settings, pool_size=PROBE_CONNECTIONS, autocommit=True)
        self._sessions = async_sessionmaker(expire_on_commit=False)
        self._read_sessions = async_sessionmaker(
            expire_on_commit=False, sync_session_class=ReadOnlySession
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session whose transaction is committed at the end, or rolled back on any error.

        Raises:
            Unavailable: the database cannot be reached or did not answer in time. Nothing was
                committed, unless the connection was lost during the commit itself.
        """
        async with self.read_connection() as connection:
            failed: list[BaseException] = []
            level = connection.dialect.default_isolation_level
            # Neither call reaches the server: asyncpg begins with the first statement.
            assert connection.sync_connection is not None
            connection.sync_connection.execution_options(
                isolation_level=level, **{FAILED_STATEMENTS: failed}
            )
            async with self._sessions(bind=connection) as session:
                yield session
                if failed:
                    # After a failed statement PostgreSQL answers COMMIT with ROLLBACK and reports
                    # no error. This statement raises the error, unless a savepoint was rolled back.
                    await session.execute(text("SELECT 1"))
                await session.commit()
        for callback in session.info.get(AFTER_COMMIT, ()):
            await callback()

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[AsyncSession]:
        """Open a session for reading.

        Raises:
            Unavailable: the database cannot be reached or did not answer in time.
        """
        async with (
            self.read_connection() as connection,
            self._read_sessions(bind=connection) as session,
        ):
            yield session

    @asynccontextmanager
    async def read_connection(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for Core statements on hot paths: it costs less than a session.

        Raises:
            Unavailable: the database cannot be reached or did not answer in time.
        """
        try:
            await self.limiter.acquire()
        except TimeoutError as error:
            raise unavailable(error) from error
        try:
            try:
                connection = await self.engine.connect()
            except (OSError, exc.TimeoutError) as error:
                raise unavailable(error) from error
            try:
                yield connection
            finally:
                await connection.close()
        finally:
            self.limiter.release()

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection for health checks. It raises the errors of SQLAlchemy."""
        async with self._probe_engine.connect() as connection:
            yield connection

    async def ping(self) -> None:
        async with self.probe() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()
        await self._probe_engine.dispose()


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    database = Database(settings)
    try:
        yield database
    finally:
        await database.close()


def after_commit(session: AsyncSession, callback: Callback) -> None:
    """Call this after the session's transaction is committed, and never if it is rolled back.

    Args:
        session: from `Database.session()`.
        callback: awaited before the response is sent. The connection is released by then.
    """
    session.info.setdefault(AFTER_COMMIT, []).append(callback)


def violated_constraint(error: exc.IntegrityError) -> str | None:
    """Return the name of the constraint that a statement violated."""
    name: str | None = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    return name
