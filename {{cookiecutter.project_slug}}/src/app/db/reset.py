"""Replace a development database by an empty, migrated one."""

import uuid
from contextlib import aclosing

from pydantic import SecretStr
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import create_migration_engine
from app.db.libpq import direct_url, libpq_parameters, libpq_url
from app.db.migrate import migrate
from app.db.schema_version import first_line
from app.db.settings import DatabaseSettings
from app.db.url import parse_postgres_url

OBJECT_IN_USE = "55006"  # SQLSTATE
COUNT_SESSIONS = text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name")


class ResetError(Exception):
    """The database was not replaced. The message is one line."""


async def reset_database(settings: DatabaseSettings, *, force: bool) -> None:
    """Create and migrate a new database, then drop the old one and rename the new one.

    If a migration fails, the old database is unchanged.

    Args:
        settings: of development or tests. The role must own the database, or be a superuser.
        force: end the sessions that use the old database.

    Raises:
        ResetError: other sessions use the database, or the role may not create or drop one.
        MigrationError: a migration failed.
        ValueError: the URL is missing or malformed.
    """
    if settings.is_deployed:
        raise ResetError(f"ENVIRONMENT is {settings.environment}: this drops every row")
    if parse_postgres_url(direct_url(settings)).is_pooled:
        raise ResetError("DATABASE_URL is a transaction pooler's: set DATABASE_UNPOOLED_URL")
    name = database_name(settings)
    new = f"reset_{uuid.uuid4().hex}"
    # A session cannot drop the database that it uses.
    server = _with_database(settings, "template1" if name == "postgres" else "postgres")
    engine = create_migration_engine(server).execution_options(isolation_level="AUTOCOMMIT")
    try:
        async with aclosing(await engine.connect()) as connection:
            if not force and await connection.scalar(COUNT_SESSIONS, {"name": name}):
                raise ResetError(_in_use(name))
            await _execute(connection, "CREATE DATABASE {}", new)
            try:
                await migrate(_with_database(settings, new))
                end_sessions = " WITH (FORCE)" if force else ""
                await _execute(connection, f"DROP DATABASE IF EXISTS {{}}{end_sessions}", name)
                await _execute(connection, "ALTER DATABASE {} RENAME TO {}", new, name)
            finally:
                await _execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", new)
    except (exc.SQLAlchemyError, OSError) as error:
        is_used = getattr(getattr(error, "orig", None), "sqlstate", None) == OBJECT_IN_USE
        raise ResetError(_in_use(name) if is_used else first_line(error)) from error


def database_name(settings: DatabaseSettings) -> str:
    """Return the name of the database, which is that of the user if the URL has none."""
    return libpq_parameters(direct_url(settings)).get("dbname", "postgres")


def _with_database(settings: DatabaseSettings, name: str) -> DatabaseSettings:
    """Return settings for another database of the same server."""
    url = libpq_url(libpq_parameters(direct_url(settings)) | {"dbname": name})
    return settings.model_copy(
        update={"database_url": SecretStr(url), "database_unpooled_url": None}
    )


def _in_use(name: str) -> str:
    return (
        f"other sessions use the database {name}: stop `app dev` and other programs, "
        "or end their sessions with --force"
    )


async def _execute(connection: AsyncConnection, statement: str, *names: str) -> None:
    """Execute a statement with quoted names. Databases cannot be parameters."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    await connection.exec_driver_sql(statement.format(*map(quote, names)))
