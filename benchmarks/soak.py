"""Compare memory, files, connections and tasks before and after mixed load, with every option.

    make soak              ten minutes; writes its section of results.md
    make soak minutes=1    a short run

The run starts a service, a worker, PostgreSQL and Valkey. It counts twice while both are idle:
after a warm-up and after the load. Bursts before each count fill the pools, which are small; short
pauses of Valkey make requests and jobs wait for it at the same time.
The run fails if a count grows by more than GROWTH, or if an answer has an unexpected status.
Needs uv, on Linux.
"""

import argparse
import asyncio
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import mix
import results_page
from services import (
    bake,
    copy_of_repository,
    cpu_seconds,
    embedded_servers,
    install,
    newest_python,
    serving,
)

HERE = Path(__file__).parent
EVERY_OPTION = (
    *("redis=yes", "metrics=yes", "rate_limit=yes", "sentry=yes", "tracing=yes"),
    *("webhooks=yes", "pgvector=yes", "auth=accounts", "worker=postgres"),
)
GROWTH = 0.02  # counts are rounded up
CONNECTIONS = 4  # a pool without a limit opens at most this many
BURST_SECONDS = 10
IDLE_SHARE = 0.1  # of a core
SMALL_POOLS = {"DATABASE_POOL_SIZE": "2", "WORKER_CONCURRENCY": "2"}
PAUSE = """
import os, redis, time

with redis.Redis.from_url(os.environ["REDIS_URL"]) as server:
    for _ in range(30):
        server.client_pause(100)
        time.sleep(0.25)
"""
COUNT = """
import asyncio, asyncpg, json, os, redis

async def count():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    clients = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
    await connection.close()
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as server:
        print(json.dumps([clients, len(server.client_list()) - 1]))

asyncio.run(count())
"""


@dataclass(frozen=True)
class Held:
    """Resources of an idle service and its worker."""

    resident_mib: float
    open_files: int
    asyncio_tasks: int
    worker_resident_mib: float
    worker_open_files: int
    postgres_connections: int
    redis_connections: int


async def visit(connection: mix.Connection) -> None:
    await mix.visit_everything(connection)
    await connection.ask(500, "GET /soak/error")


@dataclass(frozen=True)
class Running:
    """A service and its worker."""

    port: int
    pids: tuple[int, int]
    python: Path
    env: dict[str, str]

    def load(self, seconds: float, rate: float | None = None, visit: mix.Visit = visit) -> int:
        load = mix.run(self.port, visit, connections=CONNECTIONS, seconds=seconds, rate=rate)
        return asyncio.run(load)

    def wait_until_idle(self) -> None:
        """Wait until both use almost no CPU: connections are closed and jobs are done."""
        for _ in range(100):
            before = [cpu_seconds(pid) for pid in self.pids]
            time.sleep(2)
            used = [cpu_seconds(pid) - b for pid, b in zip(self.pids, before, strict=True)]
            if max(used) < 2 * IDLE_SHARE:
                return
        sys.exit("the service or its worker is not idle after the load")

    def held(self) -> Held:
        """Count after bursts of requests and of jobs."""
        self.load(BURST_SECONDS)
        env = {**os.environ, **self.env}
        with subprocess.Popen([self.python, "-c", PAUSE], env=env):
            self.load(BURST_SECONDS, visit=mix.enqueue_jobs)
        self.wait_until_idle()
        url = f"http://127.0.0.1:{self.port}/soak/tasks"
        with urllib.request.urlopen(url, timeout=10) as answer:
            tasks = json.load(answer)
        postgres, redis = json.loads(
            subprocess.run(
                [self.python, "-c", COUNT], env=env, check=True, capture_output=True, text=True
            ).stdout
        )
        service, worker = self.pids
        return Held(
            resident_mib=resident_mib(service),
            open_files=open_files(service),
            asyncio_tasks=tasks,
            worker_resident_mib=resident_mib(worker),
            worker_open_files=open_files(worker),
            postgres_connections=postgres,
            redis_connections=redis,
        )


def resident_mib(pid: int, kind: str = "VmRSS") -> float:
    """Resident memory, or with VmHWM its peak so far."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.findall(rf"{kind}:\s+(\d+)", status)[0]) / 1024


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def running() -> Iterator[Running]:
    """Bake, install, migrate and start a service; stop it and delete it afterwards."""
    cores = os.sched_getaffinity(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        template = copy_of_repository(folder / "template")
        bake(template, folder, "soaked", *EVERY_OPTION)
        project = install(folder / "soaked", newest_python(), for_production=False)
        collector = stack.enter_context(mix.Collector.server())
        threading.Thread(target=collector.serve_forever).start()
        stack.callback(collector.shutdown)
        address = f"127.0.0.1:{collector.server_port}"
        env = stack.enter_context(embedded_servers(project, cores)) | mix.SETTINGS
        env |= {
            **SMALL_POOLS,
            "ENVIRONMENT": "test",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
            "SENTRY_DSN": f"http://key@{address}/1",
            "TMPDIR": str(folder),  # for the metrics of the worker
            "WORKER_PORT": "0",
        }
        python = project / ".venv/bin/python"
        app = [str(python), "-m", "app.cli"]
        quiet = {"env": {**os.environ, **env}, "cwd": project, "stdout": subprocess.DEVNULL}
        subprocess.run([*app, "migrate"], check=True, **quiet)
        worker = subprocess.Popen([*app, "worker"], **quiet)
        stack.callback(worker.wait)
        stack.callback(worker.kill)
        served = [str(python), str(HERE / "counted.py")]
        server = stack.enter_context(serving("soaked", served, project, env, cores))
        yield Running(server.port, (server.process.pid, worker.pid), python, env)


def label(name: str) -> str:
    return name.replace("_", " ").replace("mib", "MiB")


def excesses(start: Held, end: Held) -> list[str]:
    """Name each count that grew by more than GROWTH."""
    found = []
    for name, before in asdict(start).items():
        most = before * (1 + GROWTH)
        most = math.ceil(most) if isinstance(before, int) else most
        if (after := asdict(end)[name]) > most:
            found.append(f"{label(name)} grew from {before:.4g} to {after:.4g}")
    return found


def section(start: Held, end: Held, minutes: float, answers: int, python: str) -> str:
    lines = [
        f"Written by `make soak minutes={minutes:g}` on {results_page.today()}; "
        "`soak.py` describes the method.",
        f"{answers} responses in {minutes:g} minutes on {CONNECTIONS} connections, each with the "
        "expected status; every option, one worker.",
        f"{results_page.machine()}, {python}.",
        f"The run fails if a value grows by more than {GROWTH:.0%}; counts are rounded up.",
        "",
        "| idle service and worker | after the warm-up | after the load | growth |",
        "|---|---|---|---|",
    ]
    for name, before in asdict(start).items():
        after = asdict(end)[name]
        digits = ".0f" if isinstance(before, int) else ".1f"
        lines.append(
            f"| {label(name)} | {before:{digits}} | {after:{digits}} | {after / before - 1:.1%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--warm-up", type=float, default=2, help="minutes before the first count")
    parser.add_argument("--rate", type=float, default=60, help="requests per second")
    parser.add_argument("--page", type=Path, help="page with the section to write")
    given = parser.parse_args()
    with running() as service:
        service.load(given.warm_up * 60, given.rate)
        start = service.held()
        answers, ends = 0, time.monotonic() + given.minutes * 60
        while (left := ends - time.monotonic()) > 0:
            answers += service.load(min(60, left), given.rate)
            mib = [resident_mib(pid) for pid in service.pids]
            print(f"{left / 60:5.1f} min left: {mib[0]:.1f} and {mib[1]:.1f} MiB", flush=True)
        end = service.held()
        version = subprocess.run(
            [service.python, "-V"], capture_output=True, text=True, check=True
        ).stdout.strip()
    text = section(start, end, given.minutes, answers, version)
    print(text)
    if given.page:
        results_page.write_section(given.page, results_page.SOAK, text)
    if found := excesses(start, end):
        sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
