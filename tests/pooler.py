"""A PgBouncer process for tests."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from engine import free_port, wait_until

# Debian installs it into /usr/sbin, which is not on the PATH of other users.
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
SERVER_CONNECTIONS = 4
DEFAULTS = {
    "pool_mode": "transaction",
    "default_pool_size": str(SERVER_CONNECTIONS),
    "max_client_conn": "200",
}


def version() -> tuple[int, ...]:
    """Return PgBouncer's version, or an empty tuple if it is not installed."""
    if PGBOUNCER is None:
        return ()
    output = subprocess.run([PGBOUNCER, "--version"], check=True, capture_output=True, text=True)
    return tuple(map(int, re.findall(r"\d+", output.stdout.splitlines()[0])))


@dataclass
class Psql:
    """The `psql` of the embedded PostgreSQL.

    Args:
        program: path of psql.
        host: folder of the server's socket, or an address.
    """

    program: Path
    host: Path | str
    port: int = 5432

    def __call__(self, statement: str, *, database: str = "postgres") -> list[list[str]]:
        """Run a statement; return its rows.

        Raises:
            AssertionError: the statement failed.
        """
        url = f"postgresql://postgres@/{database}?host={quote(str(self.host), safe='')}"
        command = [self.program, f"{url}&port={self.port}", "-v", "ON_ERROR_STOP=1", "-Atqc"]
        result = subprocess.run([*command, statement], check=False, capture_output=True, text=True)
        assert result.returncode == 0, f"{statement}\n{result.stdout}\n{result.stderr}"
        return [line.split("|") for line in result.stdout.splitlines()]


class Pooler:
    """A PgBouncer process; it listens on loopback and trusts every client.

    Args:
        direct: psql of the server behind it, by its socket.
        options: settings of `pgbouncer.ini` that differ from DEFAULTS.
    """

    def __init__(self, direct: Psql, **options: str) -> None:
        assert PGBOUNCER, "pgbouncer is not installed: apt-get install pgbouncer"
        self._program = PGBOUNCER
        self.direct = direct
        self.admin = Psql(direct.program, "127.0.0.1", free_port())
        self._folder = tempfile.TemporaryDirectory(prefix="test-pgbouncer-")
        folder = Path(self._folder.name)
        folder.chmod(0o755)  # for the user that PgBouncer runs as
        self._config, self._log = folder / "pgbouncer.ini", folder / "pgbouncer.log"
        users = folder / "users.txt"
        users.write_text('"postgres" ""\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.admin.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(users),
            "admin_users": "postgres",
            **DEFAULTS,
            **options,
        }
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        self._config.write_text(
            f"[databases]\n* = host={direct.host}\n[pgbouncer]\n{''.join(lines)}"
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        # PgBouncer refuses to run as root. Only PostgreSQL's user can open PostgreSQL's socket.
        owner = Path(self.direct.host).stat()
        other_user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, self._config],
                stdout=log, stderr=log, start_new_session=True,
                **other_user if os.geteuid() == 0 else {},
            )  # fmt: skip
        wait_until(lambda: "process up" in self.log(), seconds=30, of="PgBouncer listens")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        return self._log.read_text()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.admin.port}/{database}"

    def count(self, kind: str, database: str) -> int:
        """Count connections to a database: `CLIENTS` or `SERVERS` of it."""
        rows = self.admin(f"SHOW {kind}", database="pgbouncer")
        return sum(row[2] == database for row in rows)  # type, user, database, ...
