"""Deployments on a simulated platform, as on Railway and Render.

The platform sets $PORT, uses IPv6 between containers, and checks the health with its own host name.
It switches traffic to the new version while the old one runs. The old version gets SIGTERM, and
SIGKILL after the draining time.
"""

import http.client
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from engine import Load, address_of, ask, attempt, docker, record, state_of, wait_until
from test_failures import CONCURRENTLY, FAILING

pytestmark = pytest.mark.containers

HOST = "api.example.com"
PROBE_HOST = "healthcheck.railway.app"
HEALTH_SECONDS = 60  # until a deployment counts as failed
OVERLAP_SECONDS = 3  # both versions run, and the new one gets the traffic
DRAINING_SECONDS = 30  # from SIGTERM to SIGKILL
PASSWORD = "of-this-test"

EDGE = """
global
    stats socket :::9999 level admin
    maxconn 500
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    retries 0
frontend edge
    bind :::8080
    http-request set-header X-Forwarded-Proto https
    option forwardfor
    default_backend live
backend live
    server blue [::1]:1 disabled
    server green [::1]:1 disabled
"""


@dataclass
class Platform:
    """A service with its database, and a load balancer (edge) in front of it."""

    network: str
    edge: str
    database_url: str
    colour: str = "green"
    running: str | None = None
    made: list[str] = field(default_factory=list)

    def deploy(self, image: str) -> bool:
        """Start a version, and switch the traffic to it if it is healthy."""
        name, port = f"{self.network}-{len(self.made)}", 7000 + len(self.made)
        self.made.append(name)
        docker(
            "run", "--detach", "--name", name, "--network", self.network,
            "-e", f"PORT={port}", "-e", f"DATABASE_URL={self.database_url}",
            "-e", f"ALLOWED_HOSTS={HOST}", "-e", "FORWARDED_ALLOW_IPS=fd00::/8",
            image, "/bin/sh", "-c", "exec sh scripts/startup.sh",
        )  # fmt: skip
        address = address_of(name, version=6)
        deadline = time.monotonic() + HEALTH_SECONDS
        while not answers_probe(address, port):
            if time.monotonic() > deadline or not state_of(name)["Running"]:
                return False
            time.sleep(0.2)
        new, old = ("blue", "green") if self.colour == "green" else ("green", "blue")
        self.command_edge(f"set server live/{new} addr {address} port {port}")
        self.command_edge(f"set server live/{new} state ready")
        self.command_edge(f"set server live/{old} state drain")
        time.sleep(OVERLAP_SECONDS)
        if self.running:
            docker("stop", "--time", str(DRAINING_SECONDS), self.running)
            self.command_edge(f"set server live/{old} state maint")
        self.colour, self.running = new, name
        return True

    def command_edge(self, command: str) -> None:
        with socket.create_connection((address_of(self.edge, version=6), 9999), 5) as admin:
            admin.sendall(f"{command}\n".encode())
            answer = admin.makefile().read().strip()
        assert not answer or "changed" in answer or "no need" in answer, answer

    def commit(self) -> str:
        address = address_of(self.edge, version=6)
        return str(ask(f"http://[{address}]:8080/health", Host=HOST).json()["commit"])


def answers_probe(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/health/ready", headers={"Host": PROBE_HOST})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def platform(edge_config: Path) -> Iterator[Platform]:
    name = f"test-{os.urandom(4).hex()}"
    subnet = f"fd00:{os.urandom(2).hex()}:{os.urandom(2).hex()}::/64"
    docker("network", "create", "--ipv6", "--subnet", subnet, name)
    database, edge = f"{name}-database", f"{name}-edge"
    subject = None
    try:
        docker(
            "run", "--detach", "--name", database, "--network", name, "-e", "POSTGRES_USER=app",
            "-e", f"POSTGRES_PASSWORD={PASSWORD}", "postgres:18",
        )  # fmt: skip
        docker(
            "run", "--detach", "--name", edge, "--network", name, "-v",
            f"{edge_config}:/etc/haproxy/haproxy.cfg:ro", "example-service-proxy:local",
        )  # fmt: skip
        url = f"postgres://app:{PASSWORD}@[{address_of(database, version=6)}]:5432/app"
        subject = Platform(name, edge, f"{url}?sslmode=prefer")
        yield subject
    finally:
        made = subject.made if subject else []
        attempt("rm", "--force", "--volumes", *made, edge, database)
        docker("network", "rm", name)


@pytest.fixture(scope="module")
def versions(image: str, project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Build images of three versions."""
    built = {"first": image}
    bad = FAILING.replace('"9000"', '"9001"').replace('"0001"', '"9000"')
    for name, migrations in (("second", [CONCURRENTLY]), ("broken", [CONCURRENTLY, bad])):
        folder = tmp_path_factory.mktemp(name) / "service"
        shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".venv"))
        for number, text in enumerate(migrations, 9000):
            (folder / f"src/app/migrations/versions/{number}_next.py").write_text(text)
        built[name] = f"example-service:test-{name}"
        docker(
            "build", "--quiet", "--build-arg", f"COMMIT_SHA={name}", "--tag", built[name],
            str(folder),
        )  # fmt: skip
    return built


def test_deployment_failed_deployment_and_rollback_lose_no_request(
    versions: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "edge.cfg").write_text(EDGE)
    tmp_path.chmod(0o755)
    with platform(tmp_path / "edge.cfg") as subject:
        assert subject.deploy(versions["first"])
        wait_until(lambda: subject.commit() == "c0ffee", seconds=5)
        with Load(address_of(subject.edge, version=6), 8080, Host=HOST) as load:
            time.sleep(1)
            assert subject.deploy(versions["second"])
            assert subject.commit() == "second"
            assert not subject.deploy(versions["broken"])
            assert subject.commit() == "second"
            assert subject.deploy(versions["first"])
            assert subject.commit() == "c0ffee"
            time.sleep(1)
        psql = ("exec", f"{subject.network}-database", "psql", "-U", "app", "-Atqc")
        rows = docker(*psql, "SELECT count(*) FROM bookmarks")
        revision = docker(*psql, "SELECT version_num FROM alembic_version")
        families = docker(
            *psql,
            "SELECT DISTINCT family(client_addr) FROM pg_stat_activity"
            " WHERE client_addr IS NOT NULL",
        )
        first, second, broken, rolled_back = subject.made
        record(f"deploy with a migration, failed deploy, rollback: {load.summary()}")
        assert load.failed == []
        assert len(load.created) == int(rows)
        assert revision == "9000", "a rollback does not change the schema"
        assert families == "6", "containers use only IPv6"
        assert [state_of(name)["ExitCode"] for name in (first, second, broken)] == [0, 0, 1]
        assert state_of(rolled_back)["Running"]
        assert "the database is newer than this code" in docker("logs", rolled_back)
        assert '"message":"not migrated"' in docker("logs", broken)
