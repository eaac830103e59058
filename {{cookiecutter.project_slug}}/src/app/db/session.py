"""Sessions and connections. Each request uses one connection of the pool.

Reads run in autocommit. A statement takes one round trip, or two behind a transaction pooler.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import NoReturn

import structlog
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from app.db.engine import create_engine
from app.db.limiter import ConnectionLimiter
from app.db.outages import FAILED_STATEMENTS, translate_errors, unavailable
from app.db.settings import DatabaseSettings

log = structlog.get_logger()

PROBE_CONNECTIONS = 2  # checks are short, so a third check can wait
CLOSE_SECONDS = 2.0  # a frozen server confirms the end of no connection
AFTER_COMMIT = "after_commit"  # a key of session.info


class ReadOnlySession(Session):
    """The session behind a read session."""


@event.listens_for(ReadOnlySession, "before_flush")
def refuse_flush(*_: object) -> NoReturn:
    raise exc.InvalidRequestError("a read session cannot write: use Session instead")


class Database:
    """The connections to PostgreSQL.

    Attributes:
        engine: for SQLAlchemy's events. Connect with the methods, because the limiter bounds them.
        limiter: bounds the connections in use, and the wait for one.
        statement_timeout_seconds: the longest run of one statement.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        size = settings.database_pool_size
        self.statement_timeout_seconds = settings.database_statement_timeout_seconds
        self.limiter = ConnectionLimiter(size, settings.database_pool_timeout_seconds)
        self.engine = create_engine(settings, pool_size=size)
        translate_errors(self.engine.sync_engine)
        # A busy pool is not an outage, so probes have a pool of their own.
        self._probe_engine = create_engine(settings, pool_size=PROBE_CONNECTIONS)
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
        async with self._connect() as connection:
            failed: list[BaseException] = []
            level = connection.dialect.default_isolation_level
            # This sends nothing. The dialect sends BEGIN before the first statement.
            assert connection.sync_connection is not None
            connection.sync_connection.execution_options(
                isolation_level=level, **{FAILED_STATEMENTS: failed}
            )
            async with self._sessions(bind=connection) as session:
                yield session
                await commit(session, failed)
        await run_callbacks(session)

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[AsyncSession]:
        """Open a session for reading.

        A flush is refused. Writes by Core statements are not detected: each is committed at once.

        Raises:
            Unavailable: the database cannot be reached or did not answer in time.
        """
        async with (
            self._connect() as connection,
            self._read_sessions(bind=connection) as session,
        ):
            yield session

    def read_connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a connection for Core statements on hot paths: it costs less than a session.

        Raises:
            Unavailable: the database cannot be reached or did not answer in time.
        """
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[AsyncConnection]:
        """Wait for the limiter, and take a connection of the pool."""
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

    def probe(self) -> AsyncConnection:
        """Open a connection for health checks. It raises the errors of SQLAlchemy."""
        return self._probe_engine.connect()

    async def ping(self) -> None:
        async with self.probe() as connection:
            await connection.execute(text("SELECT 1"))

    async def aclose(self) -> None:
        """Close the connections, or leave them to the end of the process after CLOSE_SECONDS."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.engine.dispose()
                await self._probe_engine.dispose()


def open_database(settings: DatabaseSettings) -> AbstractAsyncContextManager[Database]:
    return aclosing(Database(settings))


async def commit(session: AsyncSession, failed: Sequence[BaseException]) -> None:
    """Commit a transaction, and raise the error of a failed statement that was not rolled back.

    Args:
        session: has the transaction.
        failed: the errors of its statements.
    """
    if failed:
        # After a failed statement PostgreSQL answers COMMIT with ROLLBACK and reports no error.
        # This statement raises the error, unless a savepoint was rolled back.
        await session.execute(text("SELECT 1"))
    await session.commit()


async def run_callbacks(session: AsyncSession) -> None:
    """Await the callbacks of `after_commit()`."""
    for callback in session.info.get(AFTER_COMMIT, ()):
        try:
            await callback()
        except Exception:  # the change is committed, so the request succeeds
            log.exception("after-commit callback failed")


def after_commit(session: AsyncSession, callback: Callable[[], Awaitable[object]]) -> None:
    """Await a callback after the session's transaction is committed, never after a rollback.

    Args:
        session: from `Database.session()`.
        callback: awaited before the response is sent, and after the connection is released. Its
            errors are only logged, because the change is committed.
    """
    session.info.setdefault(AFTER_COMMIT, []).append(callback)


def violated_constraint(error: exc.IntegrityError) -> str | None:
    """Return the name of the constraint that a statement violated."""
    name: str | None = getattr(error.driver_exception, "constraint_name", None)
    return name
