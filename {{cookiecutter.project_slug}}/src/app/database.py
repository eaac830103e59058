"""PostgreSQL: one pool, one transaction a request, and outages told apart from bugs.

Reads go out alone, in autocommit: one round trip instead of three. Writes share one
transaction, committed before the answer is sent. Both take Core statements over the models'
columns; statements are built once, at module level, with `bindparam`, because building one
costs as much as running it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Executable, MetaData, RowMapping, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.util import greenlet_spawn

from app.engine import ObservedPool, create_engine
from app.errors import Unavailable
from app.settings import Settings

log = structlog.get_logger()

PROBE_CONNECTIONS = 2  # one for each check
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

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._callbacks: list[Callable[[], Awaitable[None]]] = []

    async def fetch(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> Sequence[RowMapping]:
        """Run a statement that returns rows: a SELECT, or a change with RETURNING.

        Raises:
            Unavailable: the database cannot be reached, or did not answer in time.
        """
        with _outages(OSError):
            return await self.connection.run_sync(_fetch, statement, parameters)

    def after_commit(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call this once the transaction is committed, before the response; not if it fails."""
        self._callbacks.append(callback)

    async def commit(self) -> None:
        with _outages(OSError):
            await self.connection.commit()
        for callback in self._callbacks:
            await callback()


class Database:
    """The service's PostgreSQL."""

    def __init__(self, settings: Settings) -> None:
        self._engine = create_engine(settings, pool_size=settings.database_pool_size)
        self._reads = self._engine.execution_options(isolation_level="AUTOCOMMIT").sync_engine
        # Probes have connections of their own: a busy pool is not an outage.
        self._probe = create_engine(settings, pool_size=PROBE_CONNECTIONS)

    async def fetch(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> Sequence[RowMapping]:
        """Run one SELECT, outside of any transaction.

        Raises:
            Unavailable: the database cannot be reached, or did not answer in time.
        """
        with _outages(OSError):
            return await greenlet_spawn(_connect_and_fetch, self._reads, statement, parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commit at the end; roll back if anything is raised.

        Raises:
            Unavailable: the database cannot be reached; nothing was committed, unless the
                connection was lost during the commit itself.
        """
        with _outages(OSError):
            connection = await self._engine.connect()
        try:
            # Costs nothing before the first statement; a session that is bound to the connection
            # would else begin, and at its end roll back, a transaction of its own.
            await connection.begin()
            transaction = Transaction(connection)
            with _outages():
                yield transaction
            await transaction.commit()
        finally:
            with _outages(OSError):
                await connection.close()  # rolls back what is not committed

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[AsyncConnection]:
        """A connection for health checks, in autocommit; raises what the driver raises."""
        async with self._probe.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def pool(self) -> ObservedPool:
        """Where the connections of requests come from."""
        pool = self._engine.pool
        assert isinstance(pool, ObservedPool)
        return pool

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


def _connect_and_fetch(
    engine: Engine, statement: Executable, parameters: Parameters | None
) -> Sequence[RowMapping]:
    with engine.connect() as connection:
        return _fetch(connection, statement, parameters)


def _fetch(
    connection: Connection, statement: Executable, parameters: Parameters | None
) -> Sequence[RowMapping]:
    return connection.execute(statement, parameters).mappings().all()


@contextmanager
def _outages(kind: type[Exception] = exc.TimeoutError) -> Iterator[None]:
    """Make a problem of what says that the database is away: of OSError only in our own calls."""
    try:
        yield
    except (exc.TimeoutError, kind) as error:
        raise _unavailable(error) from error  # from the pool, or while connecting
    except exc.DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or state.startswith(OUTAGES):
            raise _unavailable(error) from error
        raise


def _unavailable(error: Exception) -> Unavailable:
    log.warning("database unavailable", reason=f"{type(error).__name__}: {error}")
    return Unavailable("The database cannot be reached right now.")


def violated_constraint(error: exc.IntegrityError) -> str | None:
    """The name of the constraint that a change violated."""
    name: str | None = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    return name
