"""From a database URL, in any form that platforms hand out, to an engine that bounds every wait."""

import re
import ssl
import time
from asyncio import CancelledError
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from asyncpg import InterfaceError, InternalClientError, PostgresError
from sqlalchemy import URL, Engine, ExceptionContext, event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.settings import Settings

# A connection idle for longer is tested before it is handed out. Testing every time would
# nearly double the cost of a small query.
IDLE_SECONDS_BEFORE_PING = 1.0
# Only health checks wait in the pool, within limits of their own; requests wait in app.db.limiter.
POOL_WAIT_SECONDS = 10.0
# The server ends the session of a machine that is gone, with the locks it holds, in a minute; if
# nobody told it to, in two hours.
VANISHED = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
FAILURES = "failures"  # among a connection's options: a list, longer by each statement that fails
# The user name and password end at the *last* @: passwords with @ : / ? # in them are common.
# One without ? is tried first, since a @ behind the ? may as well belong to a parameter.
_FORMS = [
    re.compile(
        r"postgres(?:ql)?(?:\+\w+)?://"
        rf"(?:(?P<user>[^:@/]*)(?::(?P<password>{password}*))?@)?"
        r"(?P<host>\[[^\]]+\]|[^:/?#@\[\],]*)(?::(?P<port>\d+))?"
        r"(?:/(?P<name>[^/?]*))?(?:\?(?P<query>.*))?"
    )
    for password in ("[^?]", ".")
]
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SERVER_SETTINGS = ("application_name", "options", "search_path", "timezone")
# Meant for libpq or for other languages' drivers. asyncpg cannot do channel binding.
_IGNORED = (
    *("channel_binding", "gssencmode", "sslnegotiation", "sslsni"),
    *("connection_limit", "pool_timeout", "schema", "supa"),
)


@dataclass(frozen=True)
class PostgresTarget:
    """Where to connect: a SQLAlchemy URL, and asyncpg arguments that have no place in one."""

    url: URL
    connect_args: dict[str, Any] = field(default_factory=dict)
    is_pooled: bool = False  # behind a transaction pooler, which breaks prepared statements


def parse_postgres_url(text: str, *, variable: str = "DATABASE_URL") -> PostgresTarget:
    """Understand a URL in any form that a platform gives out.

    Args:
        text: `postgres://`, `postgresql://` or with a driver; percent-encoded or not; with
            libpq's query parameters; IPv4, IPv6, name or socket directory (`?host=/path`).
        variable: where it came from, for the error.

    Raises:
        ValueError: says what is wrong with the URL, without repeating it.
    """
    matches = (form.fullmatch(text.strip()) for form in _FORMS)
    match = next((match for match in matches if match), None)
    if match is None:
        raise ValueError(f"{variable} is not of the form postgresql://user:password@host:5432/name")
    query = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    host = query.pop("host", None) or unquote(match["host"] or "").strip("[]") or "localhost"
    port = query.pop("port", None) or match["port"]
    connect_args: dict[str, Any] = {}
    server_settings: dict[str, str] = {}
    is_pooled = query.pop("pgbouncer", "false") == "true"
    ssl_mode, root_certificate = query.pop("sslmode", None), query.pop("sslrootcert", None)
    if ssl_mode is None and query.pop("ssl", None) == "true":
        ssl_mode = "require"
    if ssl_mode:
        connect_args["ssl"] = _ssl(ssl_mode, root_certificate, variable)
    for name, value in query.items():
        if name in _SERVER_SETTINGS:
            server_settings[name] = value
        elif name == "connect_timeout":
            connect_args["timeout"] = _seconds(value, variable)
        elif name == "target_session_attrs":
            connect_args["target_session_attrs"] = value.replace("-", "_")
        elif name not in _IGNORED:
            raise ValueError(f"{variable} has the parameter {name!r}, which is not understood")
    if server_settings:
        connect_args["server_settings"] = server_settings
    url = URL.create(
        "postgresql+asyncpg",
        username=_decode(match["user"]),
        password=_decode(match["password"]),
        host=None if host.startswith("/") else host,
        port=int(port) if port else None,
        database=_decode(match["name"]),
        query={"host": host} if host.startswith("/") else {},
    )
    return PostgresTarget(url, connect_args, is_pooled)


def _decode(part: str | None) -> str | None:
    return unquote(part) if part else None


def _seconds(text: str, variable: str) -> float | None:
    """Libpq's connect_timeout: whole seconds, and 0 for no limit."""
    if not text.isdigit():
        raise ValueError(f"{variable} has a connect_timeout that is no number of seconds")
    return float(text) or None


def _ssl(mode: str, root_certificate: str | None, variable: str) -> str | ssl.SSLContext:
    if mode not in _SSL_MODES:
        raise ValueError(f"{variable} has sslmode={mode}; it can be {', '.join(_SSL_MODES)}")
    if mode == "require" and root_certificate:
        mode = "verify-ca"  # as libpq does
    if not mode.startswith("verify"):
        return mode
    if root_certificate == "system":
        root_certificate = None
    try:
        context = ssl.create_default_context(cafile=root_certificate)
    except OSError as error:
        raise ValueError(
            f"{variable}: sslrootcert={root_certificate} cannot be read: {error.strerror}"
        ) from error
    context.check_hostname = mode == "verify-full"
    return context


def create_engine(
    settings: Settings, *, pool_size: int, autocommit: bool = False, for_migrations: bool = False
) -> AsyncEngine:
    """An engine with a pool of fixed size, bounded in every wait.

    Args:
        settings: where the database is, and the limits.
        pool_size: connections at most; there is no overflow.
        autocommit: every statement is its own transaction, unless a connection is told otherwise.
        for_migrations: take the direct URL and let statements run as long as they need.

    Raises:
        ValueError: the URL is missing or invalid, or is a transaction pooler's, for migrations.
    """
    unpooled = settings.database_unpooled_url if for_migrations else None
    url = unpooled or settings.database_url
    if url is None:
        raise ValueError("DATABASE_URL is missing")
    variable = "DATABASE_UNPOOLED_URL" if unpooled else "DATABASE_URL"
    target = parse_postgres_url(url.get_secret_value(), variable=variable)
    is_pooled = target.is_pooled or (settings.database_unpooled_url is not None and not unpooled)
    if is_pooled and for_migrations:
        raise ValueError(
            f"{variable} is a transaction pooler's: for migrations, set DATABASE_UNPOOLED_URL"
        )

    arguments = {"timeout": settings.database_connect_timeout_seconds, **target.connect_args}
    if is_pooled:
        # Each transaction may run on another server connection. Without caches the driver names no
        # prepared statement and closes none, which would end the transaction before it executes.
        arguments["statement_cache_size"] = 0
    limit = settings.database_statement_timeout_seconds
    server_settings = arguments.setdefault("server_settings", {})
    if for_migrations:
        lock_limit = settings.migration_lock_timeout_seconds
        # Behind a pooler, the role has a statement_timeout, which would end long migrations.
        server_settings |= VANISHED | {
            "lock_timeout": str(int(lock_limit * 1000)),
            "statement_timeout": "0",
        }
    else:
        # The server stops a slow statement; half a second later we stop waiting for the server.
        arguments["command_timeout"] = limit + 0.5
        if not is_pooled:
            server_settings |= VANISHED | {"statement_timeout": str(int(limit * 1000))}
    engine = create_async_engine(
        target.url.update_query_dict({"prepared_statement_cache_size": "0"})
        if is_pooled
        else target.url,
        connect_args=arguments,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_recycle=1800,
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT" if autocommit else None,
        hide_parameters=True,  # values may be personal data; errors are logged
    )
    _guard_checkouts(engine.sync_engine)
    if not for_migrations:  # a migration that is stopped says so to the server, which else goes on
        _leave_at_once(engine.sync_engine)
    _watch_errors(engine.sync_engine)
    return engine


def _guard_checkouts(engine: Engine) -> None:
    """Test connections that have been idle."""

    @event.listens_for(engine, "checkin")
    def remember(_connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ping(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        idle_since = entry.info.get("idle_since")
        if idle_since is None or time.monotonic() - idle_since < IDLE_SECONDS_BEFORE_PING:
            return
        try:
            # A simple query: one round trip, and no prepared statement for a pooler to lose. The
            # dialect's own ping is a transaction, whose statements would each have to time out.
            connection.run_async(lambda driver: driver.execute("SELECT 1"))
        except TimeoutError as error:
            entry.invalidate(error)  # frozen: another connection would only freeze as well
            raise
        except (PostgresError, InterfaceError, InternalClientError, OSError) as error:
            # An internal error is a connection that ended at the very moment of asking.
            # The pool throws away every connection older than this moment, and tries again.
            raise exc.InvalidatePoolError from error


def _leave_at_once(engine: Engine) -> None:
    """Give up on a connection that is waited for without a polite goodbye."""

    @event.listens_for(engine, "invalidate")
    def abort(
        connection: DBAPIConnection, _entry: ConnectionPoolEntry, error: BaseException | None
    ) -> None:
        if isinstance(error, TimeoutError | CancelledError):
            connection.driver_connection.terminate()


def _watch_errors(engine: Engine) -> None:
    """Tell the driver's time-outs from those of others, and say that a transaction has failed."""

    @event.listens_for(engine, "handle_error")
    def note(context: ExceptionContext) -> exc.TimeoutError | None:
        if context.connection is not None and context.statement is not None:
            context.connection.get_execution_options().get(FAILURES, []).append(True)
        if isinstance(context.original_exception, TimeoutError):
            return exc.TimeoutError("no answer in time")
        return None
