"""Databases of the tests, on one PostgreSQL server.

The embedded server is kept between runs, with a template database that has the last migration:
PostgreSQL copies it in less time than Alembic needs to migrate.
"""

import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

import app.migrations
from app.db.engine import create_migration_engine
from app.db.migrate import migrate
from app.settings import Settings

EMPTY = "template1"  # PostgreSQL's own template
LOCK_KEY = 7357  # of the advisory lock of the process that creates the template


class Databases:
    """Creates and drops databases.

    Args:
        connection: to the server, in autocommit.
        server_url: the URL of any database of the server.
        settings_for: returns settings for the URL of a database.
        keep_template: for a server that only tests of this project use.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        server_url: str,
        settings_for: Callable[[str], Settings],
        *,
        keep_template: bool,
    ) -> None:
        self._connection = connection
        self._server = urlsplit(server_url)
        self._settings_for = settings_for
        self._keep_template = keep_template

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
        if self._keep_template:
            async with self.new(await self._template()) as url:
                yield url
            return
        async with self.new() as url:
            await migrate(self._settings_for(url))
            yield url

    async def _template(self) -> str:
        """Return the name of the template, which one process creates.

        It has a digest of the migrations. Databases of killed processes are dropped here.
        """
        digest = hashlib.sha256()
        for file in sorted(Path(app.migrations.__path__[0]).rglob("*.py")):
            digest.update(file.read_bytes())
        template = f"template_{digest.hexdigest()[:40]}"
        await self._execute(f"SELECT pg_advisory_lock({LOCK_KEY})")
        try:
            names = set(await self._connection.scalars(text("SELECT datname FROM pg_database")))
            for name in names:
                if name.startswith("test_") and not psutil.pid_exists(int(name.split("_")[1])):
                    await self._drop(name)
            if template not in names:
                for name in names:
                    if name.startswith("template_"):  # of other migrations, or unfinished
                        await self._drop(name)
                await self._execute('CREATE DATABASE "template_unfinished"')
                await migrate(self._settings_for(self._url("template_unfinished")))
                await self._execute(f'ALTER DATABASE "template_unfinished" RENAME TO "{template}"')
        finally:
            await self._execute(f"SELECT pg_advisory_unlock({LOCK_KEY})")
        return template

    def _url(self, name: str) -> str:
        return self._server._replace(path=f"/{name}").geturl()

    async def _drop(self, name: str) -> None:
        await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    async def _execute(self, statement: str) -> None:
        await self._connection.execute(text(statement))


@asynccontextmanager
async def open_databases(
    server_url: str, settings_for: Callable[[str], Settings], *, keep_template: bool
) -> AsyncIterator[Databases]:
    """Connect to the server. The connection has no limit on the time of a statement."""
    engine = create_migration_engine(settings_for(server_url))
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        yield Databases(connection, server_url, settings_for, keep_template=keep_template)
