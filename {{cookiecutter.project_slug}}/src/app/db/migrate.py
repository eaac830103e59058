"""Migrations: run once, however many replicas start at the same moment.

Alembic itself takes no lock. The lock here is an advisory one, polled on a connection of its
own in autocommit: a blocking lock, or one inside a transaction, would hang a migration that
says CREATE INDEX CONCURRENTLY, since that waits for every open transaction.
"""

import asyncio
import time
import traceback
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

import app
from app.db.engine import create_engine
from app.db.model import Model
from app.db.schema_version import MigrationError, Revisions, load_revisions, read_revision
from app.db.settings import DatabaseSettings
from app.discovery import find_modules
from app.service_info import SERVICE_NAME

log = structlog.get_logger()

LOCK = zlib.crc32(f"{SERVICE_NAME}:migrations".encode())
POLL_SECONDS = 0.2


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files(app) / "migrations"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def load_models() -> MetaData:
    """The tables of every feature."""
    list(find_modules("models"))
    return Model.metadata


async def migrate(settings: DatabaseSettings) -> None:
    """Bring the database to the last migration; wait for it, and for other replicas, within bounds.

    Raises:
        MigrationError: the database did not appear, another replica did not finish, or a
            migration failed. What was committed by earlier migrations stays.
    """
    revisions = load_revisions()
    try:
        await _migrate_to(settings, revisions)
    except (exc.SQLAlchemyError, OSError, ValueError) as error:  # create_engine raises the last
        raise MigrationError(_reason(error)) from error


async def _migrate_to(settings: DatabaseSettings, revisions: Revisions) -> None:
    async with _connect(settings) as connection:
        try:
            async with asyncio.timeout(
                settings.migration_wait_seconds + settings.database_statement_timeout_seconds
            ):
                if await _is_done(connection, revisions):
                    return
                await _take_lock(connection, settings.migration_wait_seconds)
                if await _is_done(connection, revisions):  # somebody else did it while we waited
                    return
        except TimeoutError as error:
            raise MigrationError("the database does not answer") from error
        log.info("migrating", to=revisions.head)
        started = time.monotonic()
        await _upgrade(settings)
        log.info("migrated", to=revisions.head, seconds=round(time.monotonic() - started, 2))


def _reason(error: BaseException) -> str:
    """One line; the driver's own words where there are any."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


async def _is_done(connection: AsyncConnection, revisions: Revisions) -> bool:
    current = await read_revision(connection)
    state = revisions.state_of(current)
    if state == "ahead":
        log.warning("the database is newer than this code", database=current, code=revisions.head)
    elif state == "current":
        log.info("the database is at the last migration", revision=current)
    return state != "behind"


@asynccontextmanager
async def _connect(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """Wait for the database with growing pauses; the connection is in autocommit."""
    engine = create_engine(settings, pool_size=1, for_migrations=True)
    deadline = time.monotonic() + settings.database_wait_seconds
    pause_seconds = 0.1
    try:
        while True:
            try:
                connection = await engine.connect()
                break
            except (exc.SQLAlchemyError, OSError) as error:
                reason = _reason(error)
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
        await engine.dispose()  # closes the connection, and so gives the lock back


async def _take_lock(connection: AsyncConnection, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    is_waiting = False
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK}):
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
        raise MigrationError(f"a migration failed: {_reason(error)}") from error
    except Exception as error:  # a migration is code of any kind, which fails in any way
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise MigrationError(
            f"a migration failed: {type(error).__name__}: {_reason(error)} "
            f"({Path(place.filename).name}, line {place.lineno})"
        ) from error
    finally:
        await engine.dispose()
