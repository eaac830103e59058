"""PostgreSQL: one pool, one transaction a request, and outages told apart from bugs.

Reads go out alone, in autocommit: one round trip instead of three. Writes share one
transaction, committed before the answer is sent. Both take Core statements over the models'
columns; statements are built once, at module level, with `bindparam`, because building one
costs as much as running it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Executable, MetaData, RowMapping, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.util import greenlet_spawn

from app.db.engine import FAILURES, create_engine
from app.db.limiter import ConnectionLimiter
from app.errors import Unavailable
from app.settings import Settings

log = structlog.get_logger()

PROBE_CONNECTIONS = 2  # checks are short: a third waits for one of them
Parameters = Mapping[str, Any]

# SQLSTATE classes and codes that say "not now" rather than "not like that":
# https://www.postgresql.org/docs/current/errcodes-appendix.html
OUTAGES = (
    "08",  # connection exceptions
    "28",  # the server does not let us in
    "3D",  # the database is not there
    "40",  # serialization failures and deadlocks
    "53",  # out of connections, memory or disk
    "55P03",  # a lock was not to be had in time
    "57",  # cancelled by statement_timeout, or shutting down
    "58",  # system errors
    "25006",  # read-only: a fail-over is under way
)


class Base(DeclarativeBase):
    """Models inherit from this; constraints get predictable names, so migrations can drop them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Transaction:
    """Statements that happen together or not at all."""

    def __init__(self, engine: AsyncEngine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self.callbacks: list[Callable[[], Awaitable[None]]] = []

    @cached_property
    def connection(self) -> AsyncConnection:
        """For what fetch() cannot do: an ORM session, or many rows one by one."""
        return AsyncConnection(self._engine, self._connection)

    async def fetch(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> Sequence[RowMapping]:
        """Run a statement that returns rows: a SELECT, or a change with RETURNING.

        Raises:
            Unavailable: the database cannot be reached, or did not answer in time.
        """
        with _of_the_driver:
            return await greenlet_spawn(_fetch, self._connection, statement, parameters)

    def after_commit(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call this once the transaction is committed, before the response; not if it fails."""
        self.callbacks.append(callback)


class Database:
    """The service's PostgreSQL.

    Attributes:
        limiter: bounds the connections in use, and the wait for one.
    """

    def __init__(self, settings: Settings) -> None:
        size = settings.database_pool_size
        self.limiter = ConnectionLimiter(size, settings.database_pool_timeout_seconds)
        self._engine = create_engine(settings, pool_size=size, autocommit=True)
        # Probes have connections of their own: a busy pool is not an outage.
        self._probe = create_engine(settings, pool_size=PROBE_CONNECTIONS, autocommit=True)

    async def fetch(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> Sequence[RowMapping]:
        """Run one SELECT, outside of any transaction.

        Raises:
            Unavailable: the database cannot be reached, or did not answer in time.
        """
        with _of_the_driver:
            await self.limiter.acquire()
            try:
                return await greenlet_spawn(
                    _connect_and_fetch, self._engine.sync_engine, statement, parameters
                )
            finally:
                self.limiter.release()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commit at the end; roll back if anything is raised.

        Raises:
            Unavailable: the database cannot be reached; nothing was committed, unless the
                connection was lost during the commit itself.
        """
        with _of_the_driver:
            await self.limiter.acquire()
        try:
            with _of_the_driver:
                connection = await greenlet_spawn(_begin, self._engine.sync_engine)
            try:
                transaction = Transaction(self._engine, connection)
                with _of_the_caller:
                    yield transaction
                with _of_the_driver:
                    await greenlet_spawn(_commit, connection)
            finally:
                if not connection.closed:
                    with _of_the_driver:
                        await greenlet_spawn(_roll_back, connection)
        finally:
            self.limiter.release()
        for callback in transaction.callbacks:
            await callback()

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[AsyncConnection]:
        """A connection for health checks, in autocommit; raises what the driver raises."""
        async with self._probe.connect() as connection:
            yield connection

    async def ping(self) -> None:
        async with self.probe() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self._engine.dispose()
        await self._probe.dispose()


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings)
    try:
        yield database
    finally:
        await database.close()


def _begin(engine: Engine) -> Connection:
    connection = engine.connect()
    # From autocommit back to what the server has set. Both cost nothing before the first statement.
    level = engine.dialect.default_isolation_level
    connection.execution_options(isolation_level=level, **{FAILURES: []})
    # A session that is bound to the connection would else begin a transaction of its own.
    connection.begin()
    return connection


def _commit(connection: Connection) -> None:
    if connection.get_execution_options()[FAILURES]:
        # After an error that nobody took back to a savepoint, PostgreSQL answers COMMIT with a
        # ROLLBACK, as if all were well. To this it answers with an error.
        connection.exec_driver_sql("SELECT 1")
    connection.commit()
    connection.close()


def _roll_back(connection: Connection) -> None:
    if connection.get_execution_options()[FAILURES] and not connection.invalidated:
        driver = connection.connection.driver_connection
        if driver is not None and not driver.is_in_transaction():
            # It failed in its BEGIN, and asyncpg would go on by savepoints ever after.
            connection.invalidate()
    connection.close()


def _connect_and_fetch(
    engine: Engine, statement: Executable, parameters: Parameters | None
) -> Sequence[RowMapping]:
    with engine.connect() as connection:
        return _fetch(connection, statement, parameters)


def _fetch(
    connection: Connection, statement: Executable, parameters: Parameters | None
) -> Sequence[RowMapping]:
    return connection.execute(statement, parameters).mappings().all()


class _Outages:
    """Makes a problem of what says that the database is away."""

    def __init__(self, *kinds: type[Exception]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is None:
            return
        if isinstance(error, self._kinds):
            raise _unavailable(error) from error  # while waiting or connecting
        if isinstance(error, exc.DBAPIError):
            state = getattr(error.orig, "sqlstate", None) or ""
            if error.connection_invalidated or state.startswith(OUTAGES):
                raise _unavailable(error) from error


_of_the_driver = _Outages(OSError, exc.TimeoutError)
_of_the_caller = _Outages(exc.TimeoutError)  # whose own OSError may be of a file, or of another


def _unavailable(error: BaseException) -> Unavailable:
    log.warning("database unavailable", reason=f"{type(error).__name__}: {error}")
    return Unavailable("The database cannot be reached right now.")


def violated_constraint(error: exc.IntegrityError) -> str | None:
    """The name of the constraint that a change violated."""
    name: str | None = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    return name
