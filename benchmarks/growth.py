"""Scaling with connections, rows and processes, and overload."""

import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from load import load
from measurements import Measurements, Outage
from services import serving

CONNECTIONS = (1, 4, 16, 32, 64, 128, 256)
ROWS_PER_PAGE = (10, 100, 1000)
PROCESSES = (1, 2, 3)
SECONDS = 2
# Blocks every statement on the example's table, and with them every connection of the pool.
BLOCK = """
import asyncio, asyncpg, os, sys

async def block():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    async with connection.transaction():
        await connection.execute("LOCK TABLE bookmarks IN ACCESS EXCLUSIVE MODE")
        print("locked", flush=True)
        sys.stdin.readline()

asyncio.run(block())
"""


def measure_growth(
    measured: Measurements, project: Path, env: dict[str, str], one: str, core: int, rest: set[int]
) -> None:
    """Measure a service without options: each read queries the database."""
    app = [str(project / ".venv/bin/app"), "serve"]
    with serving("growing", app, project, env, {core}) as server:
        load(server, one, 1, rest)
        for connections in CONNECTIONS:
            sample = load(server, one, SECONDS, rest, connections=connections)
            measured.growth["connections"].append((connections, sample))
        for rows in ROWS_PER_PAGE:
            sample = load(server, f"/bookmarks?limit={rows}", SECONDS, rest)
            measured.growth["rows per page"].append((rows, sample))
    for processes in PROCESSES:
        more = {**env, "WEB_CONCURRENCY": str(processes)}
        with serving("processes", app, project, more, {core, *rest}) as server:
            load(server, one, 1, {core, *rest})
            sample = load(server, one, SECONDS, {core, *rest})
            measured.growth["processes"].append((processes, sample))


def measure_outage(
    measured: Measurements, project: Path, env: dict[str, str], one: str, core: int, rest: set[int]
) -> None:
    """Block every connection of the pool during a load, and measure the responses."""
    limits = {"DATABASE_POOL_TIMEOUT_SECONDS": "0.5", "DATABASE_STATEMENT_TIMEOUT_SECONDS": "1"}
    app = [str(project / ".venv/bin/app"), "serve"]
    with serving("blocked", app, project, {**env, **limits}, {core}) as server:
        load(server, one, 1, rest, connections=256)
        blocker = subprocess.Popen(
            [project / ".venv/bin/python", "-c", BLOCK],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if not blocker.stdout or blocker.stdout.readline() != "locked\n":
            sys.exit("the table could not be locked")
        lives: list[float] = []
        probing = threading.Thread(target=_probe_live, args=(server.port, lives))
        probing.start()
        blocked = load(server, one, 5, rest, connections=256)
        probing.join()
        blocker.communicate("\n", timeout=10)
        after = load(server, one, SECONDS, rest)
    measured.outage = Outage(
        rate=blocked.rate,
        longest_ms=blocked.longest_ms,
        refusals=blocked.errors,
        others=blocked.answers - blocked.errors,
        live_ms=max(lives),
        rate_after=after.rate,
        errors_after=after.errors,
    )


def _probe_live(port: int, milliseconds: list[float]) -> None:
    end = time.monotonic() + 4
    while time.monotonic() < end:
        started = time.perf_counter()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5).close()
        milliseconds.append((time.perf_counter() - started) * 1000)
        time.sleep(0.2)
