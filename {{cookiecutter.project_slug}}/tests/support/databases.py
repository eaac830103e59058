"""Databases of the tests, on one PostgreSQL server.

The embedded server has a template database with the last migration: PostgreSQL copies it in less
time than Alembic needs to migrate.
"""

import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import create_migration_engine
from app.db.migrate import migrate
from app.settings import Settings
from clusters import TEMPLATE

EMPTY = "template1"  # PostgreSQL's own template


class Databases:
    """Creates and drops databases.

    Args:
        connection: to the server, in autocommit.
        server_url: the URL of any database of the server.
        settings_for: returns settings for the URL of a database.
        has_template: whether the server has a copy of the data in `clusters.py`.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        server_url: str,
        settings_for: Callable[[str], Settings],
        *,
        has_template: bool,
    ) -> None:
        self._connection = connection
        self._server = urlsplit(server_url)
        self._settings_for = settings_for
        self._has_template = has_template

    @asynccontextmanager
    async def new(self, template: str = EMPTY) -> AsyncIterator[str]:
        """Create a database, yield its URL, and drop it."""
        name = f"test_{os.getpid()}_{uuid.uuid4().hex}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self._url(name)
        finally:
            await self._drop(name)

    @asynccontextmanager
    async def new_migrated(self) -> AsyncIterator[str]:
        """Create a database with the last migration, yield its URL, and drop it."""
        if self._has_template:
            async with self.new(TEMPLATE) as url:
                yield url
            return
        async with self.new() as url:
            await migrate(self._settings_for(url))
            yield url

    def _url(self, name: str) -> str:
        return self._server._replace(path=f"/{name}").geturl()

    async def _drop(self, name: str) -> None:
        await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        await self._connection.execute(text(statement))


@asynccontextmanager
async def open_databases(
    server_url: str, settings_for: Callable[[str], Settings], *, has_template: bool
) -> AsyncIterator[Databases]:
    """Connect to the server. The connection has no limit on the time of a statement."""
    engine = create_migration_engine(settings_for(server_url))
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        yield Databases(connection, server_url, settings_for, has_template=has_template)
