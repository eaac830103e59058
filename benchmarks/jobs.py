"""Compare a worker with its queue library alone, on empty jobs.

Both run on one core with the same concurrency, one after the other. The seconds are those from the
first to the last job. PgQueuer finds all jobs in the queue at its start. A worker with Celery sends
the ids of its jobs to Redis, so a process on the same core sends those of Celery alone.

    .venv/bin/python benchmarks/jobs.py --rounds 1    about two minutes; prints the rates
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import results_page
from services import bake, copy_of_repository, embedded_servers, install, newest_python

HERE = Path(__file__).parent
NUMBER = 5000
CONCURRENCIES = (4, 32)
ANSWERS = {
    "postgres": ("metrics=no", "redis=no", "worker=postgres"),
    "celery": ("metrics=no", "redis=yes", "worker=celery"),
}
JOBS = """
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.definition import job


@job()
async def empty(session: AsyncSession) -> None: ...
"""
CREATE = """
import asyncio, asyncpg, os, sys

async def create():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(f"CREATE DATABASE {sys.argv[1]}")

asyncio.run(create())
"""
# Enqueues the jobs before the worker starts.
FILL = """
import asyncio, os, sys
from sqlalchemy import text
from app.db.session import open_database
from app.jobs.backend import load_statements
from app.settings import load_settings

tables = {"postgres": "jobs, pgqueuer, pgqueuer_log", "celery": "jobs"}[sys.argv[2]]

async def fill():
    async with open_database(load_settings()) as database, database.session() as session:
        await session.execute(text(f"TRUNCATE {tables}"))
        await session.execute(
            text("INSERT INTO jobs (name, arguments) SELECT 'empty.empty', '{}'"
                 " FROM generate_series(1, :number)"), {"number": int(sys.argv[1])})
        await session.execute(load_statements().DELIVER)

asyncio.run(fill())
"""
# Waits until every job has succeeded, and prints the seconds.
WAIT = """
import asyncio, asyncpg, os, sys, time

async def wait():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        done, seconds = await connection.fetchrow(
            "SELECT count(*) FILTER (WHERE status = 'succeeded'),"
            " extract(epoch FROM max(finished_at) - min(started_at)) FROM jobs"
            " WHERE name = 'empty.empty'")  # the worker may also start a scheduled job
        if done == int(sys.argv[1]):
            print(seconds)
            return
    sys.exit(f"{done} jobs in 300 s")

asyncio.run(wait())
"""
# Sends the messages once the worker has taken a first one, and prints the time of the second.
SEND_IDS = """
import os, redis, sys, time, uuid
from bare_celery import app

with redis.Redis.from_url(os.environ["REDIS_URL"]) as server:
    app.send_task("empty", args=[str(uuid.uuid4())])
    deadline = time.monotonic() + 60
    while server.llen("bare"):
        if time.monotonic() > deadline:
            sys.exit("the worker has not started after 60 s")
        time.sleep(0.01)
print(time.monotonic())
for _ in range(int(sys.argv[1])):
    app.send_task("empty", args=[str(uuid.uuid4())])
"""
# Waits until Celery has taken every message, and prints the time.
WAIT_FOR_CELERY = """
import os, redis, sys, time

with redis.Redis.from_url(os.environ["REDIS_URL"]) as server:
    deadline = time.monotonic() + 300
    while server.llen("bare"):
        if time.monotonic() > deadline:
            sys.exit("messages are left after 300 s")
        time.sleep(0.01)
print(time.monotonic())
"""
TARGET = 0.5


class JobBench:
    """A project of each queue library, with its database, and the cores."""

    def __init__(self, folder: Path, template: Path, python: str, urls: dict[str, str]) -> None:
        self._core, *others = sorted(os.sched_getaffinity(0))
        self._others = set(others)
        self._projects: dict[str, Path] = {}
        self._env: dict[str, dict[str, str]] = {}
        for name, answers in ANSWERS.items():
            slug = f"bench-jobs-{name}"
            bake(template, folder, slug, *answers)
            feature = folder / slug / "src/app/features/empty"
            feature.mkdir()
            (feature / "__init__.py").touch()
            (feature / "jobs.py").write_text(JOBS, "utf-8")
            project = self._projects[name] = install(folder / slug, python)
            variables = {"ENVIRONMENT": "test", "PORT": "0", "LOG_LEVEL": "info"}
            env = self._env[name] = {**os.environ, **urls, **variables}
            self._run(name, CREATE, f"jobs_{name}")
            url = urlsplit(urls["DATABASE_URL"])
            env["DATABASE_URL"] = urlunsplit(
                (url.scheme, url.netloc, f"/jobs_{name}", url.query, "")
            )
            subprocess.run(
                [project / ".venv/bin/app", "migrate"], cwd=project, env=env, check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def rate_of_worker(self, name: str, concurrency: int) -> float:
        """Return the jobs per second of a worker."""
        self._run(name, FILL, str(NUMBER), name)
        app = str(self._projects[name] / ".venv/bin/app")
        with self._started(name, [app, "worker"], WORKER_CONCURRENCY=str(concurrency)):
            return NUMBER / float(self._run(name, WAIT, str(NUMBER)))

    def rate_of_library(self, name: str, concurrency: int) -> float:
        """Return the jobs per second of the queue library alone."""
        folder = self._projects[name] / ".venv/bin"
        if name == "postgres":
            command = [str(folder / "python"), str(HERE / "bare_pgqueuer.py")]
            command += [str(NUMBER), str(concurrency)]
            printed = subprocess.run(
                command, env=self._env[name], check=True, capture_output=True, text=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {self._core}),
            ).stdout  # fmt: skip
            return NUMBER / float(printed)
        command = [str(folder / "celery"), "--app", "bare_celery", "worker"]
        command += ["--concurrency", str(concurrency), "--loglevel", "warning"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with self._started(name, command):
            started = float(self._run(name, SEND_IDS, str(NUMBER), cores={self._core}))
            return NUMBER / (float(self._run(name, WAIT_FOR_CELERY)) - started)

    @contextmanager
    def _started(self, name: str, command: list[str], **variables: str) -> Iterator[None]:
        process = subprocess.Popen(
            command, cwd=HERE, env={**self._env[name], **variables}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {self._core}),
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)

    def _run(self, name: str, program: str, *arguments: str, cores: set[int] | None = None) -> str:
        return subprocess.run(
            [self._projects[name] / ".venv/bin/python", "-c", program, *arguments],
            cwd=HERE, env=self._env[name], check=True, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores or self._others),
        ).stdout  # fmt: skip


Rates = dict[tuple[str, int], list[tuple[float, float]]]


def measure_jobs(bench: JobBench, rounds: int) -> Rates:
    """Return the jobs per second of the worker and of its library, by option and concurrency."""
    rates: Rates = {}
    for number in range(rounds):
        for name in ANSWERS:
            for concurrency in CONCURRENCIES:
                worker = bench.rate_of_worker(name, concurrency)
                library = bench.rate_of_library(name, concurrency)
                rates.setdefault((name, concurrency), []).append((worker, library))
                print(
                    f"round {number + 1}: {name}, {concurrency} at once: {worker:.0f} jobs/s, "
                    f"library alone {library:.0f}, ratio {worker / library:.2f}",
                    flush=True,
                )
    return rates


def jobs_section(rates: Rates, python: str) -> str:
    """Return the text of the section, with medians of the rounds.

    Args:
        python: the version of the interpreter.
    """
    lines = [
        f"Written by `make bench` on {results_page.today()}. {results_page.machine()}, {python}.",
        f"{NUMBER:,} empty jobs of one worker on one core, and the same number of empty jobs of "
        "its queue library alone, with the same concurrency. `jobs.py` describes the method.",
        f"A worker stores each start and each result in the database. Target: {TARGET:.2f}.",
        "",
        "| option | concurrency | jobs/s | library alone | ratio |",
        "|---|---|---|---|---|",
    ]
    for (option, concurrency), of_rounds in rates.items():
        worker, library = (statistics.median(column) for column in zip(*of_rounds, strict=True))
        lines.append(
            f"| {option} | {concurrency} | {worker:.0f} | {library:.0f} | {worker / library:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, help="page with the section to write")
    given = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are required: one for the worker, one for the servers")
    python = newest_python()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        template = copy_of_repository(folder / "template")
        bake(template, folder, "bench-servers")
        servers = install(folder / "bench-servers", python, for_production=False)
        others = set(sorted(os.sched_getaffinity(0))[1:])
        urls = stack.enter_context(embedded_servers(servers, others))
        rates = measure_jobs(JobBench(folder, template, python, urls), given.rounds)
    if given.page:
        version = subprocess.run([python, "-V"], check=True, capture_output=True, text=True).stdout
        text = jobs_section(rates, version.strip())
        results_page.write_section(given.page, results_page.JOBS, text)


if __name__ == "__main__":
    main()
