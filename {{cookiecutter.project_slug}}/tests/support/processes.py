"""Processes of the service, and servers that a test can stop or freeze."""

import gzip
import json
import os
import signal
import ssl
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
import psutil

from app.db.schema_version import load_revisions
from forked import CAN_FORK, PROGRAMS, ForkedProcess

ROOT = Path(__file__).parents[2]
STARTUP = ["sh", "scripts/startup.sh"]
MIGRATE_AND_SERVE = ["app", "serve", "--migrate"]  # the command in startup.sh
PROBLEM = {"Content-Type": "application/problem+json", "X-Request-Id": "1"}
NEW_MODEL = """
from sqlalchemy import Text, TypeDecorator
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import Model, NumberedId


class Markdown(TypeDecorator):
    impl = Text
    cache_ok = True


class NoteOfThisTest(Model):
    __tablename__ = "_test_notes"

    id: Mapped[NumberedId]
    text: Mapped[str] = mapped_column(Markdown)
"""
RESERVED = "reserved_for_tests"  # no feature and no migration of this service has this name
HANG_SECONDS = 120  # only bounds a wait that never ends
# For each request without a client, httpx loads the certificates, which takes 20 to 40 ms of CPU.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
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
    """Add a migration to a copy of the source, and return the variables that select the copy.

    Args:
        source: the copy.
        text: of the migration, without the two revisions.
    """
    head = f"revision = {RESERVED!r}\ndown_revision = {load_revisions().head!r}\n"
    file = source / "app" / "migrations" / "versions" / f"{RESERVED}.py"
    file.write_text(head + text)
    return {"PYTHONPATH": str(source)}


def append_to_main(source: Path, text: str) -> dict[str, str]:
    """Append to main.py in a copy of the source, and return the variables that select the copy."""
    main = source / "app" / "main.py"
    main.write_text(main.read_text() + text)
    return {"PYTHONPATH": str(source)}


def add_model(source: Path) -> None:
    """Add a feature with a model to a copy of the source."""
    add_feature(source, "models", NEW_MODEL)


def add_feature(source: Path, module: str, text: str) -> None:
    """Add a feature with one module to a copy of the source."""
    package = source / "app" / "features" / RESERVED
    package.mkdir()
    (package / "__init__.py").touch()
    (package / f"{module}.py").write_text(text)


@dataclass(frozen=True)
class Finished:
    """A process that has ended."""

    returncode: int
    stdout: str
    stderr: str


class Service:
    """A running process of the service.

    Args:
        command: `app` or `alembic` and its arguments, which are forked, or any other command.
        env: the environment variables.
        folder: the working folder.
    """

    process: ForkedProcess | subprocess.Popen[bytes]

    def __init__(self, command: list[str], env: Mapping[str, str], folder: Path = ROOT) -> None:
        self._files = tempfile.TemporaryDirectory()
        self._out = Path(self._files.name, "out")
        self._err = Path(self._files.name, "err")
        with self._out.open("ab") as out, self._err.open("ab") as err:
            if CAN_FORK and command[0] in PROGRAMS:
                self.process = ForkedProcess(command, env, folder, self._out, self._err)
            else:
                self.process = subprocess.Popen(
                    command, cwd=folder, env=env, stdout=out, stderr=err, start_new_session=True
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):  # it has not begun a session yet
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.send_signal(signal.SIGKILL)
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

    def wait(self, timeout_seconds: float = HANG_SECONDS) -> int:
        return self.process.wait(timeout_seconds)


def run(command: list[str], env: Mapping[str, str], folder: Path = ROOT) -> Finished:
    """Run a command of `Service` to its end."""
    with Service(command, env, folder) as service:
        return Finished(service.wait(HANG_SECONDS), service.stdout, service.stderr)


def get(
    url: str, *, headers: Mapping[str, str] | None = None, timeout: float = 5
) -> httpx.Response:
    """Send a request without TLS, on a new connection."""
    return httpx.get(url, headers=headers, timeout=timeout, verify=NO_CERTIFICATES)


def _status(url: str) -> int:
    try:
        return get(url, timeout=HANG_SECONDS).status_code
    except httpx.TransportError:
        return 0


def wait_until(
    condition: Callable[[], bool], *, doing: Service | None = None, seconds: float = HANG_SECONDS
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
