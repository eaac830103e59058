"""Compare baked services with baselines: minimal FastAPI, and FastAPI with the driver alone.

    make bench            about nine minutes; writes its sections of results.md, and results.svg
    make bench rounds=1   about five minutes
    make bench before=v1  also measures the services of this commit or tag

One core serves. The load, PostgreSQL and Valkey use the other cores. All servers run during the
whole benchmark, and each round measures all of them: other work of the machine affects all. Ratios
are of medians. A control measures the same service twice and shows the noise. Needs wrk, uv and two
cores, on Linux.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import report
import results_page
from growth import measure_growth, measure_outage
from load import load
from measurements import Measurements
from services import (
    Server,
    bake,
    copy_of_commit,
    copy_of_repository,
    embedded_servers,
    free_port,
    install,
    newest_python,
    serving,
)

HERE = Path(__file__).parent
ROWS = 2000
SOME_REQUESTS_SECONDS = 2
NO_OPTION = ("metrics=no", "redis=no")
KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "no options": NO_OPTION,
    "redis": ("redis=yes", "metrics=no"),
    "metrics": ("redis=no", "metrics=yes"),
    "tracing": (*NO_OPTION, "tracing=yes"),
    "sentry": (*NO_OPTION, "sentry=yes"),
    "rate_limit": ("metrics=no", "rate_limit=yes"),
    "auth": (*NO_OPTION, "auth=accounts"),
    "webhooks": (*NO_OPTION, "webhooks=yes"),
    "pgvector": (*NO_OPTION, "pgvector=yes"),
    "worker": (*NO_OPTION, "worker=postgres"),
    "all telemetry": ("redis=no", "metrics=yes", "tracing=yes", "sentry=yes"),
}
MEASURED = ("default", "no options")
STARTED = ("default", "no options", "all telemetry", "orm")
# Every middleware is on. Telemetry goes to a closed port of this machine, which refuses it at once.
SETTINGS = {
    "ALLOWED_HOSTS": "127.0.0.1",
    "CORS_ORIGINS": "https://app.example.com",
    "RATE_LIMIT": "999999999/second",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "TRACE_RATIO": "0.1",
    "SENTRY_DSN": "http://key@127.0.0.1:9/1",
    "AUTH_KEYS": "benchmark:" + "k" * 43,
}


@dataclass(frozen=True)
class Work:
    """One kind of request, with its path for each service."""

    name: str
    paths: dict[str, str]
    creates: bool = False


@dataclass(frozen=True)
class Bench:
    """The services, and the cores that they run on."""

    folder: Path
    template: Path
    projects: dict[str, Path]
    servers: dict[str, str]  # their URLs by variable
    env: dict[str, str]
    some_id: str
    core: int
    rest: set[int]

    @property
    def one(self) -> str:
        return f"/bookmarks/{self.some_id}"

    def command(self, name: str) -> tuple[list[str], Path]:
        """Return the command of a service and its folder."""
        if name in self.projects:
            return [str(self.projects[name] / ".venv/bin/app"), "serve"], self.projects[name]
        module = "rows" if name == "orm" else name
        python = str(self.projects["default"] / ".venv/bin/python")
        options = ["--port", "{port}", "--no-access-log", "--log-level", "warning"]
        return [python, "-m", "uvicorn", *options, f"{module}:app"], HERE / "baselines"

    def serve(self, stack: ExitStack, name: str) -> Server:
        command, folder = self.command(name)
        return stack.enter_context(serving(name, command, folder, self.env, {self.core}))


def prepare(stack: ExitStack, python: str, before: str) -> Bench:
    """Bake and install every service, and start and fill their servers.

    Two of them get the routes of `measured`, which do the same work as the baselines.

    Args:
        python: the interpreter of every service.
        before: a commit whose services are measured as well, or an empty text.
    """
    core, *others = sorted(os.sched_getaffinity(0))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    template = copy_of_repository(folder / "template")
    projects = {}
    for name, answers in KINDS.items():
        slug = "bench-" + name.replace(" ", "-").replace("_", "-")
        bake(template, folder, slug, *answers)
        if name in MEASURED:
            add_measured_routes(folder / slug / "src/app")
        projects[name] = install(folder / slug, python)
    projects["control"] = projects["default"]
    if before:
        earlier = copy_of_commit(before, folder / "before")
        for name in MEASURED:
            slug = "before-" + name.replace(" ", "-")
            bake(earlier, folder, slug, *KINDS[name])
            projects[report.before(name)] = install(folder / slug, python)
    bake(template, folder, "bench-servers")
    servers = install(folder / "bench-servers", python, for_production=False)
    interpreter = str(servers / ".venv/bin/python")
    with embedded_servers(servers, set(others)) as urls:  # takes effect at the next start
        subprocess.run([interpreter, "-c", TUNE], env={**os.environ, **urls}, check=True)
    urls = stack.enter_context(embedded_servers(servers, set(others)))
    env = {**urls, **SETTINGS}
    app = str(projects["default"] / ".venv/bin/app")
    subprocess.run([app, "migrate"], env={**os.environ, **env}, cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    some_id = subprocess.run(
        [interpreter, "-c", FILL], env={**os.environ, **urls, "ROWS": str(ROWS)}, check=True,
        capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    return Bench(folder, template, projects, urls, env, some_id, core, set(others))


def add_measured_routes(app: Path) -> None:
    """Add the routes of `measured` to a baked project, as a feature of its own."""
    feature = app / "features" / "measured"
    feature.mkdir()
    (feature / "__init__.py").touch()
    shutil.copy(HERE / "measured/routes.py", feature)
    composition = (app / "main.py").read_text("utf-8")
    for line in (
        "from app.features.bookmarks import routes as bookmarks\n",
        "    app.include_router(bookmarks.router)\n",
    ):
        if composition.count(line) != 1:
            sys.exit(f"main.py does not have this line once: {line}")
        composition = composition.replace(line, line + line.replace("bookmarks", "measured"))
    (app / "main.py").write_text(composition, "utf-8")


def measure_throughput(measured: Measurements, bench: Bench, rounds: int, seconds: int) -> None:
    """Measure every kind of request on every service, in each round."""
    services = list(bench.projects)
    compared = ("control", *MEASURED)
    earlier = [report.before(name) for name in MEASURED if report.before(name) in services]
    works = [
        Work("health", dict.fromkeys(["constant", "minimal", *services], "/health/live")),
        Work("read bookmark", dict.fromkeys(["rows", *services], bench.one)),
        Work("read one", {**dict.fromkeys(compared, f"/rows/{bench.some_id}"),
                          **dict.fromkeys(earlier, bench.one), "rows": bench.one,
                          "session": f"/objects/{bench.some_id}", "orm": f"/orm/{bench.some_id}"}),
        Work("read ten", {**dict.fromkeys(compared, "/rows?limit=10"),
                          **dict.fromkeys(earlier, "/bookmarks?limit=10"),
                          "rows": "/bookmarks?limit=10", "session": "/objects?limit=10",
                          "orm": "/orm?limit=10"}),
        Work("create one", {**dict.fromkeys(compared, "/rows"),
                            **dict.fromkeys(earlier, "/bookmarks"), "rows": "/bookmarks",
                            "transactions": "/transactions", "session": "/objects",
                            "orm": "/orm"}, creates=True),
    ]  # fmt: skip
    with ExitStack() as stack:
        servers = {n: bench.serve(stack, n) for n in ("constant", "minimal", "rows", *services)}
        servers["orm"] = servers["transactions"] = servers["rows"]
        servers["session"] = servers["no options"]
        for number in range(rounds + 1):  # the first is a warm-up
            for work in works:
                for name, path in work.paths.items():
                    length = 1 if number == 0 else seconds
                    sample = load(servers[name], path, length, bench.rest, creates=work.creates)
                    if sample.errors and name != "orm":
                        sys.exit(f"{sample.errors} errors: {work.name}, {name}")
                    if number:
                        measured.samples[work.name, name].append(sample)
            print(f"round {number} of {rounds}", flush=True)


def measure_start(measured: Measurements, bench: Bench, rounds: int) -> None:
    """Measure startup time, import time, and memory after some thousands of requests."""
    for _ in range(rounds):
        for name in STARTED:
            measured.ready_seconds[name].append(start_up(bench, name))
    for name in STARTED:
        path = f"/orm/{bench.some_id}" if name == "orm" else bench.one
        with ExitStack() as stack:
            server = bench.serve(stack, name)
            load(server, path, SOME_REQUESTS_SECONDS, bench.rest)
            measured.resident[name] = server.resident_megabytes()
    measured.imports = slowest_imports(bench.projects["default"])


def start_up(bench: Bench, name: str) -> float:
    """Return the seconds from the command to the first success of /health/ready."""
    port = free_port()
    command, folder = bench.command(name)
    path = f"/orm/{bench.some_id}" if name == "orm" else "/health/ready"
    started = time.monotonic()
    process = subprocess.Popen(
        [part.replace("{port}", str(port)) for part in command],
        cwd=folder, env={**os.environ, **bench.env, "PORT": str(port), "ENVIRONMENT": "test"},
        stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {bench.core}),
    )  # fmt: skip
    try:
        while time.monotonic() - started < 30:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                return time.monotonic() - started
            except OSError:
                time.sleep(0.005)
        sys.exit("the service was not ready within 30 s")
    finally:
        process.kill()
        process.wait()


def slowest_imports(project: Path) -> list[tuple[str, float]]:
    """Return the milliseconds to import app.main: all, and the slowest packages."""
    output = subprocess.run(
        [project / ".venv/bin/python", "-X", "importtime", "-c", "import app.main"],
        cwd=project, check=True, capture_output=True, text=True,
    ).stderr  # fmt: skip
    costs: dict[str, float] = {}
    for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", output):
        package = name.split(".")[0]
        costs[package] = costs.get(package, 0) + int(own) / 1000
    ranked = sorted(costs.items(), key=lambda item: -item[1])
    return [("all", sum(costs.values())), *ranked[:8]]


def measure_bakes(measured: Measurements, bench: Bench) -> None:
    """Measure bakes with and without the lock, and a template of one file."""
    empty = bench.folder / "empty-template"
    (empty / "{{cookiecutter.project_slug}}").mkdir(parents=True)
    (empty / "{{cookiecutter.project_slug}}" / "README.md").write_text("One file.\n", "utf-8")
    (empty / "cookiecutter.json").write_text('{"project_slug": "one"}\n', "utf-8")
    for number in range(5):
        for kind, template, locks in (
            ("one file", empty, False),
            ("default, without lock", bench.template, False),
            ("default, with lock", bench.template, True),
        ):
            into = bench.folder / f"bakes-{number}"
            slug = re.sub(r"\W+", "-", kind)
            measured.bake_seconds[kind].append(bake(template, into, slug, locks=locks))


def measure_suite(measured: Measurements, bench: Bench) -> None:
    """Run the tests of the service on all cores, with embedded servers."""
    output = subprocess.run(
        ["uv", "run", "--no-sync", "pytest", "-q", "-n", "auto", "--durations=5"],
        cwd=bench.folder / "bench-servers", capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    lines = output.strip().splitlines()
    slow = [line.strip() for line in lines if re.match(r"\s*[\d.]+s (call|setup|teardown)", line)]
    measured.suite = [lines[-1].strip("= "), *slow]


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


def version(*command: str) -> str:
    """Return the version that a program prints. wrk prints it and fails."""
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0].partition(" [")[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=int, default=3, help="of load for each service in a round"
    )
    parser.add_argument("--before", default="", help="also measure the services of this commit")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are required: one for the server, one for the load")
    python = newest_python()
    measured = Measurements(
        python=version(python, "-V"), wrk=version("wrk", "-v"), before=given.before
    )
    with ExitStack() as stack:
        bench = prepare(stack, python, given.before)
        measure_throughput(measured, bench, given.rounds, given.seconds)
        measure_start(measured, bench, given.rounds)
        bare = bench.projects["no options"]
        measure_growth(measured, bare, bench.env, bench.one, bench.core, bench.rest)
        measure_outage(measured, bare, bench.env, bench.one, bench.core, bench.rest)
        measure_bakes(measured, bench)
        measure_suite(measured, bench)
    page, text = HERE / "results.md", report.page(measured, given.rounds, given.seconds)
    page.write_text(results_page.with_kept_sections(text, page.read_text("utf-8")), "utf-8")
    (HERE / "results.svg").write_text(report.plot(measured), "utf-8")
    print(page.read_text("utf-8"))


if __name__ == "__main__":
    main()
