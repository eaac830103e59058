"""A direct connection to PostgreSQL: LISTEN does not work through a transaction pooler."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from app.db.engine import create_engine
from app.db.outages import translate_errors
from app.db.settings import DatabaseSettings


@asynccontextmanager
async def open_direct_connection(settings: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """Connect with DATABASE_UNPOOLED_URL, or with DATABASE_URL if it is not set.

    Raises:
        Unavailable: the database cannot be reached. OSError means the same.
    """
    url = settings.database_unpooled_url or settings.database_url
    direct = settings.model_copy(update={"database_url": url, "database_unpooled_url": None})
    engine = create_engine(direct, pool_size=1)
    translate_errors(engine.sync_engine)
    try:
        async with engine.connect() as connection:
            yield (await connection.get_raw_connection()).driver_connection
    finally:
        await engine.dispose()
