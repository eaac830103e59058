"""The memory limits in docs/containers.md: a container serves load under each of them."""

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import ROOT, Bake
from engine import attempt, container, docker, is_ready, network, record, state_of, wait_until
from test_bake import EVERY_OPTION, NO_OPTION

sys.path.insert(0, str(ROOT / "benchmarks"))

import mix

pytestmark = [
    pytest.mark.containers,
    pytest.mark.thorough,
    pytest.mark.usefixtures("docker_engine"),
]

CONNECTIONS, SECONDS = 16, 10
SERVICES = {
    "no options": (NO_OPTION, mix.visit_bookmarks, "128m"),
    "default": ({}, mix.visit_bookmarks, "128m"),
    "accounts": ({**NO_OPTION, "auth": "accounts"}, mix.log_in, "160m"),
    "every option": (EVERY_OPTION, mix.visit_everything, "256m"),
}
PROCESSES = {"worker": "256m"}


@contextmanager
def limited(image: str, limit: str, *command: str, options: tuple[str, ...]) -> Iterator[str]:
    """Run a container with this much memory and no swap."""
    memory = ("--memory", limit, "--memory-swap", limit, "--read-only", "--tmpfs", "/tmp")
    with container(image, *command, options=(*memory, *options)) as name:
        yield name


@contextmanager
def servers() -> Iterator[tuple[str, ...]]:
    """Start PostgreSQL and Redis, and yield the options of a container that uses them."""
    with network() as net:
        joined = ("--network", net)
        password = (*joined, "--env", "POSTGRES_PASSWORD=test")
        with (
            container("pgvector/pgvector:pg18", options=password) as postgres,
            container("redis:8", options=joined) as redis,
        ):
            variables = {
                **mix.SETTINGS,
                "DATABASE_URL": f"postgresql://postgres:test@{postgres}/postgres",
                "ENVIRONMENT": "test",
                "FORWARDED_ALLOW_IPS": "*",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
                "PORT": "8000",
                "REDIS_URL": f"redis://{redis}/0",
                "SENTRY_DSN": "http://key@127.0.0.1:9/1",
            }
            environment = [w for pair in variables.items() for w in ("--env", "=".join(pair))]
            yield (*joined, *environment)


def unreclaimable_mib(name: str) -> int:
    """Return the memory of the first process that the kernel cannot reclaim."""
    status = docker("exec", name, "cat", "/proc/1/status")
    return int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) // 1024


@pytest.mark.parametrize("kind", SERVICES)
def test_container_under_its_memory_limit_serves_load(bake: Bake, kind: str) -> None:
    answers, visit, limit = SERVICES[kind]
    image = f"example-service:test-memory-{kind.replace(' ', '-')}"
    docker("build", "--quiet", "--tag", image, str(bake(lock=True, **answers).path))
    with (
        servers() as options,
        limited(image, limit, options=(*options, "--publish", "127.0.0.1::8000")) as app,
    ):
        port = int(docker("port", app, "8000").rpartition(":")[2])
        wait_until(
            lambda: is_ready(f"http://127.0.0.1:{port}") or not state_of(app)["Running"],
            seconds=60,
        )
        before = unreclaimable_mib(app)
        load = mix.run(port, visit, connections=CONNECTIONS, seconds=SECONDS)
        answered = asyncio.run(load)
        after = unreclaimable_mib(app)
        assert state_of(app)["Running"]
        record(f"memory, {kind}: {before} MiB when ready, {after} MiB after {answered} responses, "
            f"limit {limit}")  # fmt: skip
        if kind == "every option":
            check_processes(image, options)


def check_processes(image: str, options: tuple[str, ...]) -> None:
    """Start a worker, with jobs of the load in its queue, under its limit."""
    for name, limit in PROCESSES.items():
        with limited(image, limit, "app", name, options=options) as process:
            check = ("exec", process, "python", "-IS", "scripts/healthcheck.py")
            wait_until(lambda command=check: attempt(*command).returncode == 0, seconds=60)
            record(f"memory, {name}: {unreclaimable_mib(process)} MiB, limit {limit}")
