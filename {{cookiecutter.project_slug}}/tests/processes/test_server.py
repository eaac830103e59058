"""The server process: both address families, SIGTERM under load, a port in use."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from structlog.contextvars import bound_contextvars

from app.web.checks import Health
from app.web.server import ListenError, drain_on_sigterm, listen
from conftest import Lines
from processes import (
    HANG_SECONDS,
    Service,
    environment,
    get,
    run,
    wait_until,
    workers_of,
)

CONNECTIONS = 16
DRAIN_SECONDS = 2
INCLUDE = "\n    add_health_routes(app, settings, health)"
WAIT_FOR_FILE = """
    @app.get("/_test/gate")
    async def wait_for_file() -> str:
        import asyncio, pathlib, structlog

        structlog.get_logger().info("at the gate")
        while not pathlib.Path("{gate}").exists():
            await asyncio.sleep(0.05)
        return "through the gate"
"""
# Replaces main.py: the lifespan fails. The processes start faster without the modules of main.py.
FAILING = """
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def fail(_app):
    raise OSError
    yield


def create_served_app():
    return FastAPI(lifespan=fail)
"""


@contextmanager
def serving(database_url: str, **variables: str) -> Iterator[Service]:
    with Service(["app", "serve"], environment(database_url, **variables)) as service:
        yield service


def stop(service: Service) -> float:
    """Send SIGTERM, and return the seconds until the service has ended with exit code 0."""
    started = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.wait() == 0
    return time.monotonic() - started


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")
def test_several_processes_listen_on_ipv4_and_ipv6_keep_a_busy_one_and_drain(
    database_url: str, tmp_path: Path
) -> None:
    # A killed server leaves files in its temporary folder.
    env = {"WEB_CONCURRENCY": "2", "API_DOCS": "false", "TMPDIR": str(tmp_path)}
    env["DRAIN_SECONDS"] = str(DRAIN_SECONDS)
    with serving(database_url, **env) as service:
        url, workers = service.wait_until_ready(), workers_of(service)
        port = port_of(url)
        (listening,) = (line for line in service.lines if line["message"] == "listening")
        assert "docs" not in listening
        for host in ("127.0.0.1", "[::1]"):
            for _ in range(4):
                assert get(f"http://{host}:{port}/health/live").status_code == 200
        os.kill(workers[0], signal.SIGSTOP)
        try:
            time.sleep(6)  # longer than uvicorn's limit for a response to its parent
        finally:
            os.kill(workers[0], signal.SIGCONT)
        assert get(f"{url}/health/live").status_code == 200
        time.sleep(1)  # the parent looks at its processes every half second
        assert workers_of(service) == workers
        assert stop(service) >= DRAIN_SECONDS


def test_output_of_normal_work_is_json_on_stdout_only(database_url: str) -> None:
    with serving(database_url) as service:
        url = service.wait_until_ready()
        get(f"{url}/openapi.json", headers={"X-Request-Id": "of-this-test"})
        get(f"{url}/_test/nowhere")
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert service.stderr == ""
        lines = service.lines
    assert {"timestamp", "level", "message"} <= set(lines[0])
    assert "uvicorn.error" in {line.get("logger") for line in lines}
    assert "of-this-test" in {line.get("request_id") for line in lines}


@pytest.mark.parametrize(("trusted", "expected"), [("127.0.0.0/8,::1", True), ("10.0.0.1", False)])
def test_forwarded_headers_are_used_from_trusted_proxies_only(
    database_url: str, trusted: str, *, expected: bool
) -> None:
    with serving(database_url, FORWARDED_ALLOW_IPS=trusted) as service:
        port = port_of(service.wait_until_ready())
        for host in ("127.0.0.1", "[::1]"):
            url = f"http://{host}:{port}/health/live"
            response = get(url, headers={"X-Forwarded-Proto": "https"})
            assert ("Strict-Transport-Security" in response.headers) == expected, host


REQUEST = b"POST /health HTTP/1.1\r\nHost: a\r\n"
CHUNKED = REQUEST + b"Transfer-Encoding: chunked\r\n"


def test_head_and_trailers_over_the_limit_are_refused_and_trailers_ignored(
    database_url: str,
) -> None:
    with serving(database_url) as service:
        address = ("127.0.0.1", port_of(service.wait_until_ready()))
        long_header = b"X-A: " + b"a" * 30_000
        for upgrade in (b"", b"Connection: upgrade\r\nUpgrade: h2c\r\n"):
            with socket.create_connection(address, timeout=HANG_SECONDS) as client:
                trailer = b"\r\n\r\n0\r\nX-Request-Id: late\r\n\r\n"
                client.sendall(CHUNKED + upgrade + long_header + trailer)
                response = client.recv(65536)
            assert response.startswith(b"HTTP/1.1 405")
            assert b"late" not in response
        for beginning in (REQUEST, CHUNKED + b"\r\n0\r\n"):
            for headers in (b"X-A: a\r\n" * 4000, long_header):
                with socket.create_connection(address, timeout=HANG_SECONDS) as client:
                    client.sendall(beginning)
                    with pytest.raises(ConnectionError):  # the server closes the connection
                        client.sendall(headers * 1000)


async def test_request_in_flight_on_sigterm_is_finished(
    database_url: str, source: Path, tmp_path: Path
) -> None:
    main, gate = source / "app" / "main.py", tmp_path / "gate"
    content = main.read_text()
    assert INCLUDE in content
    main.write_text(content.replace(INCLUDE, WAIT_FOR_FILE.format(gate=gate) + INCLUDE))
    env = {"PYTHONPATH": str(source), "GRACEFUL_TIMEOUT_SECONDS": "60"}
    with serving(database_url, **env) as service:
        url = await asyncio.to_thread(lambda: service.url)
        async with httpx.AsyncClient(timeout=HANG_SECONDS) as client:
            in_flight = asyncio.create_task(client.get(f"{url}/_test/gate"))
            await asyncio.to_thread(
                wait_until, lambda: "at the gate" in service.messages(), doing=service
            )
            service.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(HANG_SECONDS):
                while await status_of(client, url) != 0:  # 0: no new connection is accepted
                    await asyncio.sleep(0.05)
            gate.touch()
            response = await in_flight
        assert response.json() == "through the gate"
        assert await asyncio.to_thread(service.wait) == 0


def test_failed_start_of_one_of_several_processes_exits_with_3(
    database_url: str, source: Path
) -> None:
    (source / "app" / "main.py").write_text(FAILING)
    env = {"PYTHONPATH": str(source), "WEB_CONCURRENCY": "2"}
    with Service(["app", "serve"], environment(database_url, **env)) as service:
        assert service.wait() == 3


class Load:
    """Requests over many connections, as a load balancer sends them while the service is ready."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent = 0
        self.failures: list[str] = []
        self.is_sending = True

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS)
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=HANG_SECONDS, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(CONNECTIONS):
                group.create_task(self._send(client))

    async def send_more(self) -> None:
        """Wait until every connection has sent several more requests."""
        until = self.sent + 4 * CONNECTIONS
        while self.sent < until:
            await asyncio.sleep(0.02)

    async def _send(self, client: httpx.AsyncClient) -> None:
        while self.is_sending:
            self.sent += 1
            await asyncio.sleep(0.05)  # the test needs many connections, not a high rate
            try:
                response = await client.get("/health/detailed")
            except httpx.TransportError as error:
                self.failures.append(repr(error))
            else:
                if response.status_code != 200:
                    self.failures.append(f"{response.status_code}: {response.text}")


async def status_of(client: httpx.AsyncClient, url: str) -> int:
    try:
        return (await client.get(f"{url}/health/ready", timeout=HANG_SECONDS)).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_sigterm_under_load_loses_no_request(database_url: str, processes: str) -> None:
    env = {"GRACEFUL_TIMEOUT_SECONDS": "60", "WEB_CONCURRENCY": processes}
    with serving(database_url, DRAIN_SECONDS="300", **env) as service:
        url = await asyncio.to_thread(service.wait_until_ready)
        load = Load(url)
        running = asyncio.create_task(load.run())
        async with httpx.AsyncClient() as prober, asyncio.timeout(HANG_SECONDS):
            await load.send_more()
            service.process.send_signal(signal.SIGTERM)
            while (status := await status_of(prober, url)) == 200:
                await asyncio.sleep(0.02)
            assert status == 503
            await load.send_more()  # a load balancer reacts later: new requests still arrive
            load.is_sending = False
            await running
        # A second SIGTERM ends the drain. The parent of several processes forwards only the first.
        for pid in workers_of(service) or [service.process.pid]:
            os.kill(pid, signal.SIGTERM)
        assert await asyncio.to_thread(service.wait) == 0
    assert load.failures == []
    print(f"{load.sent} sent, 0 failed")


def test_drain_lasts_for_the_seconds_of_the_setting(database_url: str) -> None:
    with serving(database_url, DRAIN_SECONDS=str(DRAIN_SECONDS)) as service:
        service.wait_until_ready()
        assert stop(service) >= DRAIN_SECONDS


def test_second_sigterm_ends_the_drain(database_url: str) -> None:
    with serving(database_url, DRAIN_SECONDS="300") as service:
        service.wait_until_ready()
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in service.messages(), doing=service)
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0  # long before the end of the drain


async def test_drain_on_sigterm_is_logged_without_a_request_id(lines: Lines) -> None:
    stopped = asyncio.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        with drain_on_sigterm(Health(), 0), bound_contextvars(request_id="of-a-request"):
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(stopped.wait(), HANG_SECONDS)
    finally:
        signal.signal(signal.SIGTERM, before)
    (line,) = lines()
    assert line["message"] == "draining"
    assert "request_id" not in line


def test_port_in_use_fails_with_one_line(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = environment(database_url, PORT=port, HOST="127.0.0.1")
        result = run(["app", "serve"], env)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: cannot listen on port {port} of 127.0.0.1: Address")
    assert "attempting" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ListenError, match=r"port 0 of 192\.0\.2\.1.*HOST to an address"):
        listen("192.0.2.1", 0)


def test_connection_after_head_is_reused(database_url: str) -> None:
    with Service(["app", "serve"], environment(database_url)) as service:
        port = int(service.wait_until_ready().rpartition(":")[2])
        request = "{} /health/live HTTP/1.1\r\nHost: a\r\n{}\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(request.format("HEAD", "").encode() * 2)
            client.sendall(request.format("GET", "Connection: close\r\n").encode())
            responses = client.makefile("rb").read()
    assert responses.count(b"HTTP/1.1 200 OK") == 3
    assert responses.count(b"content-length: 18") == 3
    assert responses.count(b'{"status":"alive"}') == 1
