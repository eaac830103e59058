"""A sign of life for the container's health check, which has no HTTP to ask: a file's age."""

import tempfile
import time
from pathlib import Path

from app.settings import SERVICE_NAME

BEAT_SECONDS = 5.0
OLDEST_SECONDS = 30.0


class Heartbeat:
    """The sign of life of one process of a container.

    Args:
        name: of what the process does.
    """

    def __init__(self, name: str) -> None:
        self._file = Path(tempfile.gettempdir(), f"{SERVICE_NAME}-{name}.alive")

    def beat(self) -> None:
        self._file.touch()

    def problem(self) -> str | None:
        """What is wrong; None while it lives."""
        try:
            age = time.time() - self._file.stat().st_mtime
        except FileNotFoundError:
            return "no sign of life yet"
        return None if age < OLDEST_SECONDS else f"no sign of life for {age:.0f} s"
