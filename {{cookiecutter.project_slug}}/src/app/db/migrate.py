"""Migrate the database: one replica at a time, with bounded waits.

Alembic takes no lock. This module polls an advisory lock, in autocommit on a separate connection.
CREATE INDEX CONCURRENTLY waits for every open transaction. It would never end if another replica
waited for the lock in a transaction or in a statement.
"""

import asyncio
import time
import zlib
from contextlib import aclosing

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import create_migration_engine
from app.db.migration_target import MigrationTarget, Step, newer_than_code
from app.db.model import Model
from app.db.schema_version import (
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
ACQUIRE_LOCK = text(f"SELECT pg_try_advisory_lock({LOCK_KEY})")
POLL_SECONDS = 0.2


def alembic_config(connection: Connection | None = None) -> Config:
    """Return a configuration that needs no pyproject.toml, which a production image lacks.

    Args:
        connection: used by `env.py`. Without it, `env.py` connects itself.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "app:migrations")
    return config


def load_models() -> MetaData:
    """Import the models of every feature, and return their tables."""
    list(find_modules("models"))
    return Model.metadata


async def migrate(
    settings: DatabaseSettings, *, to: str | None = None, accept_newer: bool = True
) -> None:
    """Run `alembic upgrade head`, after waiting for the database and for other replicas.

    Args:
        settings: the database and the longest waits.
        to: upgrade or downgrade to this revision, to "head", or to "base", before the first one.
        accept_newer: return if the database has migrations that this code does not have.

    Raises:
        MigrationError: the database did not appear, another replica did not finish, a migration
            failed, or `to` cannot be reached. Migrations that were committed before stay.
    """
    revisions = load_revisions()
    target = None if to in {None, "head", revisions.head} else MigrationTarget(str(to), settings)

    async def find_step(connection: AsyncConnection) -> Step | None:
        if target is not None:
            step = target.step_from(await read_revisions(connection))
            if step is None:
                log.info("the database is at this migration", revision=to)
            return step
        accepts = accept_newer and to is None
        is_done = await _is_done(connection, revisions, accept_newer=accepts)
        return None if is_done else (command.upgrade, "head")

    wait_seconds = settings.migration_wait_seconds
    limit_seconds = wait_seconds + settings.database_statement_timeout_seconds
    try:
        # Closing the connection releases the lock.
        async with aclosing(await _connect(settings)) as connection:
            async with asyncio.timeout(limit_seconds):
                if await find_step(connection) is None:
                    return
                await _acquire_lock(connection, wait_seconds)
                # Another replica may have migrated during the wait.
                if (step := await find_step(connection)) is None:
                    return
            goal = revisions.head if to in {None, "head"} else to
            log.info("migrating", to=goal)
            started = time.monotonic()
            await _run(settings, step)
            seconds = round(time.monotonic() - started, 2)
            log.info("migrated", to=goal, seconds=seconds)
    except TimeoutError as error:
        raise MigrationError("the database does not answer") from error
    except (exc.SQLAlchemyError, OSError, ValueError) as error:
        # create_migration_engine() raises ValueError for a wrong URL.
        raise MigrationError(first_line(error)) from error


async def _is_done(
    connection: AsyncConnection, revisions: Revisions, *, accept_newer: bool
) -> bool:
    current = await read_revisions(connection)
    state = revisions.state_of(current)
    if state == "current":
        log.info("the database is at the last migration", revision=revisions.head)
    elif state == "ahead" and accept_newer:
        log.warning(
            "the database is newer than this code", database=describe(current), code=revisions.head
        )
    elif state == "ahead":
        raise newer_than_code(current)
    return state != "behind"


async def _connect(settings: DatabaseSettings) -> AsyncConnection:
    """Connect in autocommit. Retry with growing pauses until the database accepts connections."""
    engine = create_migration_engine(settings).execution_options(isolation_level="AUTOCOMMIT")
    deadline = time.monotonic() + settings.database_wait_seconds
    # SQLAlchemy executes statements of its own after the driver has connected.
    limit_seconds = (
        settings.database_connect_timeout_seconds + settings.database_statement_timeout_seconds
    )
    pause_seconds = 0.1
    while True:
        try:
            async with asyncio.timeout(limit_seconds):
                return await engine.connect()
        except (exc.SQLAlchemyError, OSError) as error:  # TimeoutError is an OSError
            reason = first_line(error)
            if time.monotonic() + pause_seconds > deadline:
                waited = f"{settings.database_wait_seconds:g} s"
                raise MigrationError(f"no database after {waited} ({reason})") from error
        log.info("waiting for the database", reason=reason)
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 2, 2)


async def _acquire_lock(connection: AsyncConnection, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    if await connection.scalar(ACQUIRE_LOCK):
        return
    log.info("waiting for another replica to migrate")
    while not await connection.scalar(ACQUIRE_LOCK):
        if time.monotonic() > deadline:
            limit = f"{timeout_seconds:g} s"
            raise MigrationError(f"another replica has been migrating for over {limit}")
        await asyncio.sleep(POLL_SECONDS)


async def _run(settings: DatabaseSettings, step: Step) -> None:
    run, revision = step
    try:
        async with create_migration_engine(settings).connect() as connection:
            await connection.run_sync(lambda sync: run(alembic_config(sync), revision))
    except Exception as error:  # a migration is code, which may raise any error
        raise MigrationError(f"a migration failed: {explain(error)}") from error
