"""Translate connection errors and timeouts of PostgreSQL into `Unavailable`."""

import structlog
from sqlalchemy import Connection, Engine, ExceptionContext, event, exc

from app.errors import Unavailable

log = structlog.get_logger()

# Name of the execution option that holds the errors of failed statements.
FAILED_STATEMENTS = "failed_statements"
# SQLSTATE classes and codes of conditions that pass:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
OUTAGES = (
    "08",  # connection exceptions
    "28",  # invalid authorization
    "3D",  # the database does not exist
    "40",  # serialization failures and deadlocks
    "53",  # insufficient resources: connections, memory or disk
    "55P03",  # lock_timeout
    "57",  # statement_timeout, or the server shuts down
    "58",  # system errors
    "25006",  # read-only: a failover is in progress
)


def unavailable(error: BaseException) -> Unavailable:
    """Log an outage, and return the error for the client."""
    log.warning("database unavailable", reason=f"{type(error).__name__}: {error}")
    return Unavailable("The database cannot be reached right now.")


def translate_errors(engine: Engine) -> None:
    """Raise `Unavailable` in place of errors that mean an outage, and record failed statements."""

    @event.listens_for(engine, "handle_error")
    def translate(context: ExceptionContext) -> Unavailable | None:
        error = context.original_exception
        if not isinstance(error, Exception):
            return None  # the task was cancelled
        if context.connection is not None and context.statement is not None:
            failed = context.connection.get_execution_options().get(FAILED_STATEMENTS)
            if failed is not None:
                failed.append(error)
                if not (
                    context.is_disconnect
                    or _is_in_transaction(context.connection)
                    or _is_unsent(context.sqlalchemy_exception)
                ):
                    # BEGIN failed. asyncpg would begin later transactions with SAVEPOINT.
                    _invalidate(context)
        if isinstance(error, TimeoutError):
            _invalidate(context)
        state = getattr(error, "sqlstate", None) or ""
        if context.is_disconnect or isinstance(error, OSError) or state.startswith(OUTAGES):
            return unavailable(error)
        return None


def _is_unsent(error: Exception | None) -> bool:
    """Return whether a statement was not sent, because of a parameter that its type refuses."""
    return isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError)


def _invalidate(context: ExceptionContext) -> None:
    """Discard this connection, because its state is unknown, and no other."""
    context.is_disconnect = True
    context.invalidate_pool_on_disconnect = False


def _is_in_transaction(connection: Connection) -> bool:
    driver = connection.connection.driver_connection
    return driver is not None and driver.is_in_transaction()
