"""The heartbeat and the shutdown of a process without HTTP.

The heartbeat is a file whose age the health check reads.
"""

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from app.service_info import SERVICE_NAME

log = structlog.get_logger()

BEAT_SECONDS = 5.0
MAX_AGE_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0  # of connecting to Redis, and of every command


@contextmanager
def heartbeat(process: str) -> Iterator[None]:
    """Renew the heartbeat after the block. If the block fails, log the reason instead.

    Args:
        process: its name. A container has one process of this name.
    """
    try:
        yield
        _file(process).touch()
    except Exception as error:  # noqa: BLE001 - every failure means that the process is not healthy
        log.warning("no heartbeat", reason=f"{type(error).__name__}: {error}")


def heartbeat_problem(process: str) -> str | None:
    """Return the problem, for `sys.exit`, or None if the heartbeat is recent."""
    try:
        age = time.time() - _file(process).stat().st_mtime
    except FileNotFoundError:
        return f"{process}: no heartbeat yet"
    return None if age < MAX_AGE_SECONDS else f"{process}: no heartbeat for {age:.0f} s"


def _file(process: str) -> Path:
    return Path(tempfile.gettempdir(), f"{SERVICE_NAME}-{process}.alive")


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop
