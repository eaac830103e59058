"""A plugin of pytest: every test starts in the last second before midnight or a change of offset.

The times are midnights and changes of the offset to UTC. Between two tests, the clock of
wall_clock.c jumps forward to the next one. Needs a run with one worker: a jump would affect the
tests of other workers.
"""

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def calendar_changes(start: float) -> Iterator[float]:
    """Yield the times of midnights and of offset changes after a time, in the local time zone."""
    quarter = start - start % 900
    while True:
        before, quarter = quarter, quarter + 900
        offset = time.localtime(quarter).tm_gmtoff
        if (quarter + offset) % 86400 == 0 or offset != time.localtime(before).tm_gmtoff:
            yield quarter


class Clock:
    def __init__(self) -> None:
        self._file = Path(os.environ["WALL_CLOCK"])
        self._changes = calendar_changes(time.time())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        now = time.time()
        wait = next(change for change in self._changes if change > now) - now
        shift, began = struct.unpack("=qq", self._file.read_bytes())
        with self._file.open("r+b") as file:
            file.write(struct.pack("=qq", shift + int(wait), began))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Clock())
