"""Create engines with bounded waits: a pool for requests, and none for migrations."""

import time
from asyncio import CancelledError

from asyncpg import InterfaceError, InternalClientError, PostgresError
from sqlalchemy import Engine, NullPool, event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.db.libpq import direct_url
from app.db.settings import DatabaseSettings
from app.db.url import parse_postgres_url

# A connection that was idle for longer is tested at checkout. A test at every checkout would
# nearly double the cost of a small query.
IDLE_SECONDS_BEFORE_PING = 1.0
# The server ends the session of a vanished machine, and releases its locks, within a minute.
# Without these settings it takes two hours.
TCP_SETTINGS = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# Only health checks wait in the pool, within limits of their own. Requests wait in the limiter.
POOL_WAIT_SECONDS = 10.0
CLIENT_MARGIN_SECONDS = 0.5  # the client waits this much longer than the server's own limit


def create_engine(settings: DatabaseSettings, *, pool_size: int) -> AsyncEngine:
    """Create an engine in autocommit, with a pool of fixed size.

    Args:
        settings: the URL and the limits.
        pool_size: maximum number of connections; there is no overflow.

    Raises:
        ValueError: the URL is missing.
    """
    if settings.database_url is None:
        raise ValueError("DATABASE_URL is missing")
    target = parse_postgres_url(settings.database_url.get_secret_value())
    limit_seconds = settings.database_statement_timeout_seconds
    connect_args = {
        "timeout": settings.database_connect_timeout_seconds,
        "command_timeout": limit_seconds + CLIENT_MARGIN_SECONDS,
        **target.connect_args,
    }
    if target.is_pooled or settings.database_unpooled_url is not None:
        # A pooler may run each transaction on another server connection. Without caches, asyncpg
        # uses unnamed statements, which it does not close. Closing a statement before its
        # execution would end the transaction.
        connect_args |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    else:
        connect_args["server_settings"] |= TCP_SETTINGS | {"statement_timeout": f"{limit_seconds}s"}
    engine = create_async_engine(
        target.url,
        connect_args=connect_args,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_recycle=1800,
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # parameters may be personal data, and errors are logged
    )
    _test_idle_connections(engine.sync_engine)
    _terminate_timed_out_connections(engine.sync_engine)
    return engine


def create_migration_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Create an engine without a pool and without a limit on the time of a statement.

    Closing a connection ends its session, which releases the session's locks.

    Raises:
        ValueError: the URL is missing, or that of a transaction pooler.
    """
    target = parse_postgres_url(direct_url(settings))
    if target.is_pooled:
        raise ValueError("migrations need a direct connection: set DATABASE_UNPOOLED_URL")
    connect_args = {"timeout": settings.database_connect_timeout_seconds, **target.connect_args}
    connect_args["server_settings"] |= TCP_SETTINGS | {
        "lock_timeout": f"{settings.migration_lock_timeout_seconds}s",
        # Behind a pooler the role has a statement_timeout, which would end long migrations.
        "statement_timeout": "0",
    }
    # Connections are not terminated on a timeout here: in a clean close, asyncpg cancels the
    # running statement on the server.
    return create_async_engine(
        target.url, connect_args=connect_args, poolclass=NullPool, hide_parameters=True
    )


def _test_idle_connections(engine: Engine) -> None:
    @event.listens_for(engine, "checkin")
    def remember(_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ping(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        idle_since = entry.info.get("idle_since")
        if idle_since is None or time.monotonic() - idle_since < IDLE_SECONDS_BEFORE_PING:
            return
        try:
            # A simple query is one round trip and prepares no statement. The dialect's own ping
            # is a transaction of three statements, and each of them would have to time out.
            connection.run_async(lambda driver: driver.execute("SELECT 1"))
        except TimeoutError as error:
            entry.invalidate(error)  # the server is frozen: a new connection would hang as well
            raise
        except (PostgresError, InterfaceError, InternalClientError, OSError) as error:
            # asyncpg raises InternalClientError when the connection ends during the query.
            # The pool discards every connection older than this moment, and tries again.
            raise exc.InvalidatePoolError from error


def _terminate_timed_out_connections(engine: Engine) -> None:
    """Terminate timed-out connections without waiting for a clean close."""

    @event.listens_for(engine, "invalidate")
    def terminate(
        connection: DBAPIConnection, _entry: ConnectionPoolEntry, error: BaseException | None
    ) -> None:
        if isinstance(error, TimeoutError | CancelledError):
            connection.driver_connection.terminate()
