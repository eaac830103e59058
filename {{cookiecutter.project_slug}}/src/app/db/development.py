"""Report that the code needs another schema than the database has, on one line each."""

import asyncio
import traceback
from pathlib import Path

import structlog
from sqlalchemy import exc

from app.db.schema_version import (
    MigrationError,
    describe,
    first_line,
    load_revisions,
    read_revisions,
)
from app.db.session import Database

log = structlog.get_logger()

UNDEFINED = {"42P01", "42703"}  # SQLSTATE of an undefined table and column
PACKAGE = Path(__file__).parents[1]


async def warn_of_unapplied_migrations(database: Database) -> None:
    """Log a warning if the database is behind this code, or if that cannot be found out."""
    try:
        revisions = await asyncio.to_thread(load_revisions)
        async with database.probe() as connection:
            current = await read_revisions(connection)
    except (MigrationError, exc.SQLAlchemyError, OSError) as error:
        log.warning("the migrations were not checked", reason=first_line(error))
        return
    if revisions.state_of(current) == "behind":
        log.warning(
            "unapplied migrations: run `uv run app migrate`",
            database=describe(current),
            code=revisions.head,
        )


def log_undefined(error: BaseException) -> bool:
    """Log one line for a statement with a table or column that the database does not have.

    Returns:
        whether the error is of this kind.
    """
    cause = error.driver_exception if isinstance(error, exc.DBAPIError) else None
    if cause is None or getattr(cause, "sqlstate", None) not in UNDEFINED:
        return False
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    log.error(
        "the database does not have what a statement uses",
        reason=first_line(cause),
        place=f"{own[-1].filename}:{own[-1].lineno}" if own else None,
        hint='run `uv run app migrate`, after `uv run app migration "…"` if a model has changed',
    )
    return True
