"""Measures a baked service beside the limits it must come close to, in one run on this machine.

    make bench            about nine minutes; writes results.md and results.svg
    make bench rounds=1   a look, in two

One core serves; the load, PostgreSQL and Valkey have the others. All servers run all the time and
take turns under load, so that whatever else this machine does meets each of them alike. Ratios
are of medians. A control, the same service twice, says how far apart equal things come out.
Needs wrk, uv and two cores, on Linux.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import report
from figures import Figures, Sample

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
CONNECTIONS = 32
ROWS = 1000
NO_OPTION = ("metrics=no", "redis=no")
ALL_TELEMETRY = ("redis=no", "metrics=yes", "tracing=yes", "sentry=yes")
# An address of this machine where nobody listens: what is sent there is refused at once.
TELEMETRY = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "TRACE_RATIO": "0.1",
    "SENTRY_DSN": "http://key@127.0.0.1:9/1",
}


@dataclass
class Server:
    """A running contender: a name for the tables, and where it answers."""

    name: str
    port: int
    process: subprocess.Popen[bytes]

    def resident_megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


@dataclass(frozen=True)
class Work:
    """One kind of request: what it is called, and its path for each contender."""

    name: str
    paths: dict[str, str]
    creates: bool = False


def copy_of_repository(into: Path) -> Path:
    """What is or would be committed, without what working in place leaves behind."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listing.split("\0")):
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, into / name)
    return into


def bake(template: Path, into: Path, name: str, *answers: str) -> tuple[Path, float]:
    """Bake and install a service; its folder, and the seconds that the bake took."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "cookiecutter", "--no-input", "--output-dir", into, template,
         f"project_slug={name}", *answers],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.monotonic() - started
    subprocess.run(
        ["uv", "sync", "--quiet", "--no-python-downloads", "--compile-bytecode"],
        cwd=into / name, check=True,
    )  # fmt: skip
    return into / name, seconds


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def embedded_servers(project: Path, cores: set[int]) -> Iterator[dict[str, str]]:
    """PostgreSQL and Valkey of the service's development dependencies; their URLs."""
    program = (
        "import sys, json, pathlib\n"
        "from app.dev import embedded_services\n"
        "with embedded_services(pathlib.Path('.data')) as urls:\n"
        "    print(json.dumps(urls), flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [project / ".venv/bin/python", "-c", program],
        cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    try:
        assert process.stdout
        yield json.loads(process.stdout.readline())
    finally:
        process.communicate("", timeout=30)


@contextmanager
def serving(
    name: str, command: list[str], folder: Path, env: dict[str, str], core: int
) -> Iterator[Server]:
    """Run a server on one core until the block ends."""
    port = free_port()
    variables = {**os.environ, "PORT": str(port), "ENVIRONMENT": "test", "LOG_LEVEL": "info", **env}
    command = [part.replace("{port}", str(port)) for part in command]
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}), start_new_session=True,
    )  # fmt: skip
    try:
        wait_until_answers(f"http://127.0.0.1:{port}/health/live", process)
        yield Server(name, port, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1000):
        if process.poll() is not None:
            sys.exit(f"a server ended at once: {process.args}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return
    sys.exit(f"a server does not answer: {process.args}")


def load(server: Server, path: str, seconds: int, cores: set[int], *, creates: bool) -> Sample:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    if creates:
        command += ["-s", str(HERE / "create.lua")]
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}{path}"],
        env={**os.environ, "TAG": os.urandom(8).hex(), "TARGET": path},
        check=True, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ).stdout  # fmt: skip
    errors = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", output)))
    errors += sum(
        int(n)
        for line in re.findall(r"Socket errors: (.*)", output)
        for n in re.findall(r"\d+", line)
    )
    return Sample(
        float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0]),
        _milliseconds(output, "50"),
        _milliseconds(output, "99"),
        errors,
    )


def _milliseconds(output: str, quantile: str) -> float:
    number, unit = re.findall(rf"{quantile}%\s+([\d.]+)(us|ms|s)", output)[0]
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def start_up(project: Path, env: dict[str, str], core: int) -> float:
    """Seconds from `app serve` to the first 200 of /health/ready."""
    port = free_port()
    started = time.monotonic()
    process = subprocess.Popen(
        [project / ".venv/bin/app", "serve"],
        cwd=project, env={**os.environ, **env, "PORT": str(port), "ENVIRONMENT": "test"},
        stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    try:
        while time.monotonic() - started < 30:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5).close()
                return time.monotonic() - started
            except OSError:
                time.sleep(0.005)
        sys.exit("the service was not ready within 30 s")
    finally:
        process.kill()
        process.wait()


def measure(rounds: int, seconds: int) -> Figures:
    figures = Figures()
    server_core, *others = sorted(os.sched_getaffinity(0))
    rest = set(others)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        kinds = {
            "default": (),
            "control": (),
            "no options": NO_OPTION,
            "redis": ("redis=yes", "metrics=no"),
            "metrics": ("redis=no", "metrics=yes"),
            "tracing": (*NO_OPTION, "tracing=yes"),
            "sentry": (*NO_OPTION, "sentry=yes"),
            "rate_limit": ("metrics=no", "rate_limit=yes"),
            "all telemetry": ALL_TELEMETRY,
        }
        template = copy_of_repository(folder / "template")
        projects = {}
        for name, answers in kinds.items():
            if name == "control":
                continue
            slug = "bench-" + name.replace(" ", "-").replace("_", "-")
            projects[name], figures.bake_seconds[name] = bake(template, folder, slug, *answers)
        projects["control"] = projects["default"]
        python = str(projects["default"] / ".venv/bin/python")
        with embedded_servers(projects["default"], rest) as urls:  # takes effect at the next start
            subprocess.run([python, "-c", TUNE], env={**os.environ, **urls}, check=True)
        urls = stack.enter_context(embedded_servers(projects["default"], rest))
        env = {**urls, "RATE_LIMIT": "999999999/second", **TELEMETRY}
        app = str(projects["default"] / ".venv/bin/app")
        subprocess.run([app, "migrate"], env={**os.environ, **env}, cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        some_id = subprocess.run(
            [python, "-c", FILL], env={**os.environ, **urls, "ROWS": str(ROWS)}, check=True,
            capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        servers = {}
        uvicorn = [python, "-m", "uvicorn", "--port", "{port}", "--no-access-log",
                   "--log-level", "warning"]  # fmt: skip
        for name in ("constant", "minimal", "rows"):
            servers[name] = stack.enter_context(
                serving(name, [*uvicorn, f"{name}:app"], HERE / "limits", env, server_core)
            )
        for name, project in projects.items():
            servers[name] = stack.enter_context(
                serving(name, [str(project / ".venv/bin/app"), "serve"], project, env, server_core)
            )
        one, page = f"/bookmarks/{some_id}", "/bookmarks?limit=10"
        services = list(projects)
        works = [
            Work("health", dict.fromkeys(["constant", "minimal", *services], "/health/live")),
            Work("read one", {**dict.fromkeys(["rows", *services], one), "orm": f"/orm/{some_id}"}),
            Work(
                "read ten",
                {**dict.fromkeys(["rows", "default", "control", "no options"], page),
                 "orm": "/orm?limit=10"},
            ),
            Work(
                "create one",
                {**dict.fromkeys(["rows", "default", "control", "no options"], "/bookmarks"),
                 "orm": "/orm"},
                creates=True,
            ),
        ]  # fmt: skip
        servers["orm"] = servers["rows"]
        for number in range(rounds + 1):  # the first one warms up
            for work in works:
                for name, path in work.paths.items():
                    length = 1 if number == 0 else seconds
                    sample = load(servers[name], path, length, rest, creates=work.creates)
                    if sample.errors:
                        sys.exit(f"{sample.errors} errors: {work.name}, {name}")
                    if number:
                        figures.samples[work.name, name].append(sample)
            print(f"round {number} of {rounds}", flush=True)
        figures.resident = {name: servers[name].resident_megabytes() for name in services}
        for _ in range(rounds):
            for name in ("default", "no options", "all telemetry"):
                figures.ready_seconds[name].append(start_up(projects[name], env, server_core))
    return figures


TUNE = """
import asyncio, asyncpg, os

async def tune():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        await connection.execute(f"ALTER SYSTEM SET {setting} = off")
    await connection.execute("ALTER SYSTEM SET max_connections = 400")

asyncio.run(tune())
"""
FILL = """
import asyncio, asyncpg, os

async def fill():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(
        "INSERT INTO bookmarks (url, title) SELECT 'https://example.com/' || n, 'Bookmark ' || n"
        " FROM generate_series(1, $1::int) AS n ON CONFLICT DO NOTHING", int(os.environ["ROWS"]))
    await connection.execute("ANALYZE bookmarks")
    print(await connection.fetchval("SELECT id FROM bookmarks ORDER BY url LIMIT 1"))

asyncio.run(fill())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3, help="of load, for each in a round")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not on the path: on Debian, apt-get install wrk")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one serves, the other makes the load")
    figures = measure(given.rounds, given.seconds)
    (HERE / "results.md").write_text(report.page(figures, given.rounds, given.seconds), "utf-8")
    (HERE / "results.svg").write_text(report.plot(figures), "utf-8")
    print((HERE / "results.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
