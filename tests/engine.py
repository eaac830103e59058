"""Docker commands, compose stacks and load for tests."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any, Self

CONNECTIONS = 32
KINDS = ("container", "volume", "network", "image")  # that a test could leave
MEASUREMENTS: list[str] = []  # lines, printed at the end of the run


def docker(*arguments: str, **options: Any) -> str:
    """Run a docker command, and return its standard output.

    Raises:
        AssertionError: the command failed. The message has its output.
    """
    result = attempt(*arguments, **options)
    assert result.returncode == 0, f"docker {' '.join(arguments)}\n{result.stdout}\n{result.stderr}"
    return result.stdout.strip()


def attempt(
    *arguments: str, timeout: float = 300, **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments],
        capture_output=True, text=True, check=False, timeout=timeout, **options,
    )  # fmt: skip


def record(measurement: str) -> None:
    """Print a measurement at the end of the run."""
    MEASUREMENTS.append(measurement)


def is_running() -> bool:
    return shutil.which("docker") is not None and attempt("info").returncode == 0


def listing(kind: str) -> set[str]:
    """Return the ids of a kind. For images: tags of example services, and untagged images."""
    if kind == "image":
        tags = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        untagged = docker("image", "ls", "--quiet", "--filter", "dangling=true").split()
        return {tag for tag in tags if tag.startswith("example-service")} | set(untagged)
    return set(docker(kind, "ls", "--quiet", *["--all"] * (kind == "container")).split())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def kill(container: str) -> None:
    """Kill the process. After `docker kill` Docker would not restart the container."""
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container)), signal.SIGKILL)


def address_of(container: str, *, version: int = 4) -> str:
    kind = "IPAddress" if version == 4 else "GlobalIPv6Address"
    return docker(
        "inspect", "--format", f"{{{{range .NetworkSettings.Networks}}}}{{{{.{kind}}}}}{{{{end}}}}",
        container,
    )  # fmt: skip


def state_of(container: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", container))
    return state


def wait_until(condition: Callable[[], object], *, seconds: float, of: str = "") -> float:
    """Wait until a condition is true, and return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {of}"
        time.sleep(0.05)
    return time.monotonic() - started


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str, *, method: str = "GET", body: object = None, timeout: float = 15, **headers: str
) -> Answer:
    """Send a request. The status is 0 without a response. Header names have _ for -."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None
    if body is not None:
        data, given = json.dumps(body).encode(), {"Content-Type": "application/json", **given}
    request = urllib.request.Request(url, data, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return Answer(response.status, _lower(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, _lower(error.headers), error.read())
    except OSError:
        return Answer(0, {}, b"")


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def is_ready(url: str) -> bool:
    return ask(f"{url}/health/ready", timeout=5).status == 200


@dataclass
class Stack:
    """A compose project with its own name and port."""

    folder: Path
    files: tuple[str, ...] = ("compose.yaml",)
    variables: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:8]}")
    port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "1")
        left = docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.name}"
        )
        assert left == ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        mine = {
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_FILE": os.pathsep.join(self.files),
            "COMPOSE_PATH_SEPARATOR": os.pathsep,
            "IMAGE_TAG": "test",
            "PORT": str(self.port),
        }
        return {**os.environ, **mine, **self.variables}

    def attempt(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return attempt(
            "compose", *arguments, cwd=self.folder, env=self.environment, timeout=timeout
        )

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        result = self.attempt(*arguments, timeout=timeout)
        if result.returncode != 0:
            logs = self.attempt("logs", "--tail", "40")
            raise AssertionError(
                f"docker compose {' '.join(arguments)}\n{result.stdout}\n{result.stderr}\n"
                f"{logs.stdout}"
            )
        return result.stdout.strip()

    def make(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments],
            cwd=self.folder, env={**self.environment, "COMPOSE_STATUS_STDOUT": "1"}, input=typed,
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def up(self, *arguments: str) -> float:
        """Start the stack, wait until it is healthy, and return the seconds that it took."""
        started = time.monotonic()
        self.compose("up", "--no-build", "--wait", "--wait-timeout", "120", *arguments)
        return time.monotonic() - started

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def psql(self, statement: str) -> str:
        return self.compose(
            "exec", "-T", "database",
            "psql", "-U", "app", "-d", "app", "-v", "ON_ERROR_STOP=1", "-Atqc", statement,
        )  # fmt: skip


@dataclass
class Outcome:
    """One request under load. `ended` is a time of the monotonic clock."""

    ended: float
    seconds: float
    status: int  # 0: the connection broke
    kind: str  # content type, or name of the error


class Load:
    """Reads and writes over many connections until the block ends.

    Connections are kept until the server closes them. Requests are not retried: each lost request
    is counted.

    Args:
        host: name or address, without brackets.
        port: TCP port.
        writes: whether one request in ten creates a bookmark.
        pause_seconds: between two requests of a connection.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connections: int = CONNECTIONS,
        writes: bool = True,
        pause_seconds: float = 0.02,
        **headers: str,
    ) -> None:
        self._host, self._port, self._writes = host, port, writes
        self._connections, self._pause_seconds = connections, pause_seconds
        self._headers = {"Host": "localhost", **headers}
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.outcomes: list[Outcome] = []
        self.created: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        time.sleep(0.5)
        return self

    def stop(self) -> None:
        """Send no more requests. Running requests still get their responses."""
        self._is_over = True

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a request has no response after a minute"

    @property
    def statuses(self) -> Counter[int]:
        return Counter(outcome.status for outcome in self.outcomes)

    @property
    def failed(self) -> list[Outcome]:
        return [o for o in self.outcomes if not 200 <= o.status < 300]

    def recovered_after(self, moment: float) -> float:
        """Return the seconds from a moment until the last failure after it, or 0."""
        late = [outcome.ended for outcome in self.failed if outcome.ended > moment]
        return max(late, default=moment) - moment

    def summary(self) -> str:
        slowest = max(outcome.seconds for outcome in self.outcomes)
        return (
            f"{len(self.outcomes)} sent, {len(self.failed)} failed, {dict(self.statuses)}, "
            f"slowest {slowest:.2f} s"
        )

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(self._connections)))

    async def _connection(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        count = 0
        while not self._is_over:
            count += 1
            started = time.monotonic()
            try:
                if streams is None:
                    streams = await asyncio.open_connection(self._host, self._port)
                status, kind, is_kept = await self._exchange(
                    *streams, is_write=self._writes and count % 10 == 0
                )
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                status, kind, is_kept = 0, type(error).__name__, False
            ended = time.monotonic()
            self.outcomes.append(Outcome(ended, ended - started, status, kind))
            if not is_kept and streams is not None:
                streams[1].close()
                with contextlib.suppress(OSError):
                    await streams[1].wait_closed()
                streams = None
            await asyncio.sleep(self._pause_seconds if status else 0.1)
        if streams is not None:
            streams[1].close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_write: bool
    ) -> tuple[int, str, bool]:
        headers = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items())
        if is_write:
            page = f"https://example.com/{uuid.uuid4().hex}"
            body = json.dumps({"url": page, "title": "Load"})
            head = f"POST /bookmarks HTTP/1.1\r\n{headers}Content-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        else:
            writer.write(f"GET /bookmarks?limit=5 HTTP/1.1\r\n{headers}\r\n".encode())
        head_bytes = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        first, *lines = head_bytes.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        answered = dict(line.lower().split(": ", 1) for line in lines if line)
        await reader.readexactly(int(answered.get("content-length", 0)))
        if is_write and status == 201:
            self.created.append(page)
        is_kept = answered.get("connection") != "close"
        return status, answered.get("content-type", ""), is_kept


@contextlib.contextmanager
def network(*options: str) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", *options, name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextlib.contextmanager
def container(image: str, *arguments: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """Run an image in the background, and remove the container with its volumes afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    try:
        docker("run", "--detach", "--name", name, *options, image, *arguments)
        yield name
    finally:  # a container may exist although it did not start
        attempt("rm", "--force", "--volumes", name)
