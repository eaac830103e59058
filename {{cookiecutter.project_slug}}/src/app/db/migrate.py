"""Migrate the database: one replica at a time, with bounded waits.

Alembic takes no lock. This module takes an advisory lock, which it polls on an own connection in
autocommit. A lock that blocks, or a lock in a transaction, would make CREATE INDEX CONCURRENTLY
hang, because that statement waits for every open transaction.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import create_engine
from app.db.model import Model
from app.db.schema_version import (
    MIGRATIONS,
    MigrationError,
    Revisions,
    describe,
    explain,
    first_line,
    load_revisions,
    read_revisions,
)
from app.db.settings import DatabaseSettings
from app.discovery import find_modules
from app.service_info import SERVICE_NAME

log = structlog.get_logger()

LOCK_KEY = zlib.crc32(f"{SERVICE_NAME}:migrations".encode())
POLL_SECONDS = 0.2


def alembic_config(connection: Connection | None = None) -> Config:
    """Return a configuration that needs no pyproject.toml, which a production image lacks.

    Args:
        connection: `env.py` uses it instead of a connection of its own.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def load_models() -> MetaData:
    """Import the models of every feature, and return their tables."""
    list(find_modules("models"))
    return Model.metadata


async def migrate(settings: DatabaseSettings, *, accept_newer: bool = True) -> None:
    """Run `alembic upgrade head`, after waiting for the database and for other replicas.

    Args:
        settings: the database and the longest waits.
        accept_newer: return if the database has migrations that this code does not have.

    Raises:
        MigrationError: the database did not appear, another replica did not finish, or a
            migration failed. Migrations that were committed before stay.
    """
    revisions = load_revisions()
    try:
        await _migrate(settings, revisions, accept_newer=accept_newer)
    except (exc.SQLAlchemyError, OSError, ValueError) as error:  # create_engine raises the last
        raise MigrationError(first_line(error)) from error


async def _migrate(settings: DatabaseSettings, revisions: Revisions, *, accept_newer: bool) -> None:
    async with _connect(settings) as connection:
        try:
            async with asyncio.timeout(
                settings.migration_wait_seconds + settings.database_statement_timeout_seconds
            ):
                if await _is_done(connection, revisions, accept_newer=accept_newer):
                    return
                await _acquire_lock(connection, settings.migration_wait_seconds)
                # Another replica may have migrated during the wait.
                if await _is_done(connection, revisions, accept_newer=accept_newer):
                    return
        except TimeoutError as error:
            raise MigrationError("the database does not answer") from error
        log.info("migrating", to=revisions.head)
        started = time.monotonic()
        await _upgrade(settings)
        log.info("migrated", to=revisions.head, seconds=round(time.monotonic() - started, 2))


async def _is_done(
    connection: AsyncConnection, revisions: Revisions, *, accept_newer: bool
) -> bool:
    current = await read_revisions(connection)
    state = revisions.state_of(current)
    if state == "ahead":
        if not accept_newer:
            raise MigrationError(
                f"the database is at {describe(current)}, which this code does not have: get the "
                "code that has it, or use an empty database (in development, delete .data/)"
            )
        log.warning(
            "the database is newer than this code", database=describe(current), code=revisions.head
        )
    elif state == "current":
        log.info("the database is at the last migration", revision=revisions.head)
    return state != "behind"


@asynccontextmanager
async def _connect(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Connect in autocommit. Retry with growing pauses until the database accepts connections."""
    engine = create_engine(settings, pool_size=1, for_migrations=True)
    deadline = time.monotonic() + settings.database_wait_seconds
    pause_seconds = 0.1
    try:
        while True:
            try:
                connection = await engine.connect()
                break
            except (exc.SQLAlchemyError, OSError) as error:
                reason = first_line(error)
                if time.monotonic() + pause_seconds > deadline:
                    raise MigrationError(
                        f"no database after {settings.database_wait_seconds:g} s ({reason})"
                    ) from error
                log.info("waiting for the database", reason=reason)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, 2)
        try:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")
        finally:
            await connection.close()
    finally:
        await engine.dispose()  # closes the connection, which releases the lock


async def _acquire_lock(connection: AsyncConnection, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    is_waiting = False
    acquire = text("SELECT pg_try_advisory_lock(:key)")
    while not await connection.scalar(acquire, {"key": LOCK_KEY}):
        if not is_waiting:
            log.info("waiting for another replica to migrate")
            is_waiting = True
        if time.monotonic() > deadline:
            raise MigrationError(f"another replica has been migrating for over {wait_seconds:g} s")
        await asyncio.sleep(POLL_SECONDS)


async def _upgrade(settings: DatabaseSettings) -> None:
    engine = create_engine(settings, pool_size=1, for_migrations=True)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), "head"))
            await connection.commit()
    except (exc.SQLAlchemyError, CommandError, OSError) as error:
        raise MigrationError(f"a migration failed: {first_line(error)}") from error
    except Exception as error:  # a migration is code, which may raise any error
        raise MigrationError(f"a migration failed: {explain(error)}") from error
    finally:
        await engine.dispose()
