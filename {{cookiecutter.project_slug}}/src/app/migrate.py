"""Migrations: run once, however many replicas start at the same moment.

Alembic itself takes no lock. The lock here is an advisory one, polled on a connection of its
own in autocommit: a blocking lock, or one inside a transaction, would hang a migration that
says CREATE INDEX CONCURRENTLY, since that waits for every open transaction.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

import app
from app.database import Base, Database
from app.engine import create_engine
from app.features import feature_modules
from app.settings import SERVICE_NAME, Settings

log = structlog.get_logger()

LOCK = zlib.crc32(f"{SERVICE_NAME}:migrations".encode())
POLL_SECONDS = 0.2
UNDEFINED_TABLE = "42P01"

State = Literal["current", "behind", "ahead"]


class MigrationError(Exception):
    """The schema could not be brought to where this code needs it; one line says why."""


@dataclass(frozen=True)
class Revisions:
    """The migrations that this code carries."""

    head: str | None
    known: frozenset[str]

    def state_of(self, current: str | None) -> State:
        """Compare with a database's revision; one that we do not know comes from newer code."""
        if current == self.head:
            return "current"
        return "behind" if current is None or current in self.known else "ahead"


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files(app) / "migrations"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def load_revisions() -> Revisions:
    """Read the migrations from the package.

    Raises:
        MigrationError: two migrations follow the same one, as after a merge of branches.
    """
    scripts = ScriptDirectory.from_config(alembic_config())
    try:
        head = scripts.get_current_head()
    except CommandError:
        heads = ", ".join(scripts.get_heads())
        raise MigrationError(
            f"the migrations {heads} are all last: let each follow another (down_revision)"
        ) from None
    return Revisions(head, frozenset(script.revision for script in scripts.walk_revisions()))


def load_models() -> MetaData:
    """The tables of every feature."""
    list(feature_modules("models"))
    return Base.metadata


async def read_revision(connection: AsyncConnection) -> str | None:
    """The revision a database is at; None if it was never migrated. Takes no lock."""
    try:
        revision: str | None = await connection.scalar(
            text("SELECT version_num FROM alembic_version")
        )
    except exc.ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != UNDEFINED_TABLE:
            raise
        return None
    return revision


async def check_revision(database: Database, revisions: Revisions) -> None:
    """For readiness: a newer database is fine, so that a rolled-back version serves.

    Raises:
        MigrationError: the database is behind this code.
    """
    async with database.probe() as connection:
        current = await read_revision(connection)
    if revisions.state_of(current) == "behind":
        raise MigrationError(
            f"the database is at {current or 'no revision'}, not {revisions.head}: "
            "`app migrate` brings it there"
        )


async def migrate(settings: Settings) -> None:
    """Bring the database to the last migration; wait for it, and for other replicas, within bounds.

    Raises:
        MigrationError: the database did not appear, another replica did not finish, or a
            migration failed. What was committed by earlier migrations stays.
    """
    revisions = load_revisions()
    try:
        await _migrate_to(settings, revisions)
    except (exc.SQLAlchemyError, OSError) as error:
        raise MigrationError(_reason(error)) from error


async def _migrate_to(settings: Settings, revisions: Revisions) -> None:
    async with _connect(settings) as connection:
        if await _is_done(connection, revisions):
            return
        await _take_lock(connection, settings.migration_wait_seconds)
        if await _is_done(connection, revisions):  # somebody else did it while we waited
            return
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
async def _connect(settings: Settings) -> AsyncIterator[AsyncConnection]:
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


async def _upgrade(settings: Settings) -> None:
    engine = create_engine(settings, pool_size=1, for_migrations=True)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), "head"))
            await connection.commit()
    except (exc.SQLAlchemyError, CommandError, OSError) as error:
        raise MigrationError(f"a migration failed: {_reason(error)}") from error
    finally:
        await engine.dispose()
