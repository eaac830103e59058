"""A process that runs jobs: its event loop, and its objects."""

import subprocess
import sys

from processes import ROOT, environment

START = """
import gc
from app.jobs.event_loop import create_runner
from app.settings import load_settings
from app.worker import worker_config

async def open_and_close():
    async with worker_config(load_settings()).open_context(1):
        return gc.get_freeze_count()

with create_runner() as runner:
    print(runner.run(open_and_close()), type(runner.get_loop()).__module__)
"""


def test_worker_runs_on_uvloop_and_no_collection_traverses_its_modules(database_url: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", START],
        cwd=ROOT,
        env=environment(database_url, LOG_LEVEL="error"),
        capture_output=True,
        text=True,
        check=True,
    )
    frozen, loop = result.stdout.split()
    assert int(frozen) > 10_000
    assert loop == ("asyncio.windows_events" if sys.platform == "win32" else "uvloop")
