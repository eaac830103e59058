"""The heartbeats of workers, in `/health/detailed` of the service."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app.db.session import Database
from app.jobs.models import WORKERS

log = structlog.get_logger()

ALIVE = timedelta(seconds=30)  # since the last heartbeat
TIMEOUT_SECONDS = 2.0

_BEAT_AT = WORKERS.c.beat_at
_SUMMARY = select(
    func.count().filter(func.now() - ALIVE < _BEAT_AT).label("alive"),
    func.extract("epoch", func.now() - func.max(_BEAT_AT)).label("age"),
)


async def read_workers(database: Database) -> dict[str, float | None] | None:
    """Return the number of workers with a recent heartbeat, and the age of the last one.

    A worker deletes its heartbeat when it stops, and a killed one keeps it for an hour.

    Returns:
        None if the database does not answer.
    """
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), database.probe() as connection:
            alive, age = (await connection.execute(_SUMMARY)).one()
    except (OSError, SQLAlchemyError) as error:
        log.warning("workers unknown", reason=f"{type(error).__name__}: {error}")
        return None
    return {"alive": alive, "heartbeat_age_seconds": age if age is None else round(float(age), 1)}
