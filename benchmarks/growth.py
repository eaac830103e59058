"""How cost grows, and what happens when there is more to do than can be done."""

import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from contenders import serving
from figures import Figures, Outage
from load import load

CONNECTIONS = (1, 4, 16, 32, 64, 128, 256)
ROWS_A_PAGE = (10, 100, 1000)
PROCESSES = (1, 2, 3)
SECONDS = 2
# Holds up every statement on the example's table, and with them every connection of the pool.
HOLD = """
import asyncio, asyncpg, os, sys

async def hold():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    async with connection.transaction():
        await connection.execute("LOCK TABLE bookmarks IN ACCESS EXCLUSIVE MODE")
        print("held", flush=True)
        sys.stdin.readline()

asyncio.run(hold())
"""


def measure_growth(
    figures: Figures, project: Path, env: dict[str, str], one: str, core: int, rest: set[int]
) -> None:
    """Of a service without options: each read asks the database."""
    app = [str(project / ".venv/bin/app"), "serve"]
    with serving("growing", app, project, env, {core}) as server:
        load(server, one, 1, rest)
        for connections in CONNECTIONS:
            sample = load(server, one, SECONDS, rest, connections=connections)
            figures.growth["connections"].append((connections, sample))
        for rows in ROWS_A_PAGE:
            sample = load(server, f"/bookmarks?limit={rows}", SECONDS, rest)
            figures.growth["rows a page"].append((rows, sample))
    for processes in PROCESSES:
        more = {**env, "WEB_CONCURRENCY": str(processes)}
        with serving("processes", app, project, more, {core, *rest}) as server:
            load(server, one, 1, {core, *rest})
            sample = load(server, one, SECONDS, {core, *rest})
            figures.growth["processes"].append((processes, sample))


def measure_outage(
    figures: Figures, project: Path, env: dict[str, str], one: str, core: int, rest: set[int]
) -> None:
    """The pool is used up for as long as the load lasts: quick refusals, or a pile-up?"""
    limits = {"DATABASE_POOL_TIMEOUT_SECONDS": "0.5", "DATABASE_STATEMENT_TIMEOUT_SECONDS": "1"}
    app = [str(project / ".venv/bin/app"), "serve"]
    with serving("held up", app, project, {**env, **limits}, {core}) as server:
        load(server, one, 1, rest, connections=256)
        holder = subprocess.Popen(
            [project / ".venv/bin/python", "-c", HOLD],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if not holder.stdout or holder.stdout.readline() != "held\n":
            sys.exit("the table could not be locked")
        lives: list[float] = []
        asking = threading.Thread(target=_ask_live, args=(server.port, lives))
        asking.start()
        held = load(server, one, 5, rest, connections=256)
        asking.join()
        holder.communicate("\n", timeout=10)
        after = load(server, one, SECONDS, rest)
    figures.outage = Outage(
        rate=held.rate,
        longest_ms=held.longest_ms,
        refusals=held.errors,
        others=held.answers - held.errors,
        live_ms=max(lives),
        rate_after=after.rate,
        errors_after=after.errors,
    )


def _ask_live(port: int, milliseconds: list[float]) -> None:
    end = time.monotonic() + 4
    while time.monotonic() < end:
        started = time.perf_counter()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5).close()
        milliseconds.append((time.perf_counter() - started) * 1000)
        time.sleep(0.2)
