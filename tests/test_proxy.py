"""HAProxy with the shipped configuration in front of a baked service, and slow clients.

Needs Debian's package `haproxy`. Without it these tests are skipped, or fail if CI is set.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import Bake
from engine import ask, free_port
from test_first_minutes import environment, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.posix,
    pytest.mark.skipif(
        shutil.which("haproxy") is None and "CI" not in os.environ,
        reason="haproxy is not installed: apt-get install haproxy; CI fails without it",
    ),
]

SLOW_CLIENTS = 200
PAUSE_SECONDS = 0.3  # between two bytes
SLOW_HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
SLOW_BODY = (
    b"POST /bookmarks HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
)


def configure(project: Path, folder: Path, port: int, replica: str) -> Path:
    """Write the project's configuration with addresses of this machine and a shorter limit."""
    text = (project / "proxy" / "haproxy.cfg").read_text()
    for ours, theirs in (
        ("bind :8080", f"bind 127.0.0.1:{port}"),
        ("server-template app 10 app:8000", f"server app {replica}"),
        (" resolvers docker resolve-prefer ipv4 init-addr none", ""),
        ("timeout http-request 10s", "timeout http-request 2s"),
    ):
        assert text.count(ours) == 1, ours
        text = text.replace(ours, theirs)
    file = folder / "haproxy.cfg"
    file.write_text(text)
    return file


@contextmanager
def haproxy(config: Path, url: str) -> Iterator[None]:
    """Run HAProxy, and wait until it serves."""
    log = config.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(["haproxy", "-db", "-f", config], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while ask(f"{url}/health/live").status != 200:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def proxied(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run a service with short timeouts behind HAProxy, and yield the port of HAProxy."""
    folder = tmp_path_factory.mktemp("proxied")
    project = bake(lock=True).copy_to(folder / "example-service")
    env = environment(folder, REQUEST_BODY_TIMEOUT_SECONDS="2")
    command = ["uv", "run", "--quiet", "--no-python-downloads", "--python", sys.executable]
    command += ["app", "dev", "--no-reload"]
    port = free_port()
    with serving(command, project, env):
        config = configure(project, folder, port, f"127.0.0.1:{env['PORT']}")
        with haproxy(config, f"http://127.0.0.1:{port}"):
            yield port


async def send_slowly(port: int, begun: bytes) -> tuple[int, bytes]:
    """Send single bytes until the connection is closed, and return the response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def drip() -> None:
        writer.write(begun)
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            writer.write(b"x")

    dripping = asyncio.create_task(drip())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.split(b": ") for line in head.split(b"\r\n")[1:-2])
        body = await reader.readexactly(int(fields[b"content-length"]))
        with suppress(ConnectionError):  # a byte was sent after the server closed the connection
            assert await reader.read() == b""
        return int(head.split()[1]), body
    finally:
        dripping.cancel()
        writer.close()


async def slow_clients(port: int, begun: bytes) -> list[tuple[int, bytes]]:
    """Return the responses to slow clients. Other clients are served meanwhile."""
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        slow = [group.create_task(send_slowly(port, begun)) for _ in range(SLOW_CLIENTS)]
        while not all(task.done() for task in slow):
            answer = await asyncio.to_thread(ask, f"http://127.0.0.1:{port}/health/live")
            assert answer.status == 200
            await asyncio.sleep(0.1)
    return [task.result() for task in slow]


def test_slow_heads_through_haproxy_get_408_and_other_clients_are_served(proxied: int) -> None:
    answers = asyncio.run(slow_clients(proxied, SLOW_HEAD))
    assert {status for status, _ in answers} == {408}


def test_slow_bodies_behind_haproxy_get_408_and_other_clients_are_served(proxied: int) -> None:
    answers = asyncio.run(slow_clients(proxied, SLOW_BODY))
    assert {status for status, _ in answers} == {408}
    problems = [json.loads(body) for _, body in answers]
    assert all("request_id" in problem for problem in problems), (
        "responses of HAProxy have no request id"
    )


def test_head_and_host_checks_behind_haproxy_are_unchanged(proxied: int) -> None:
    for head, expected in (
        ("HEAD /health/live HTTP/1.1\r\nHost: a", b"200"),
        ("GET http://a/health/live HTTP/1.1\r\nHost: a", b"200"),
        ("GET http://a/health/live HTTP/1.1\r\nHost: b", b"400"),
        ("GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b", b"400"),
    ):
        with socket.create_connection(("127.0.0.1", proxied), timeout=20) as client:
            client.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
            answer = client.makefile("rb").read()
        assert answer.split()[1] == expected, head
        if head.startswith("HEAD"):
            assert b"content-length: 18\r\n" in answer.lower()
            assert answer.endswith(b"\r\n\r\n")
