"""The heartbeat of a process without HTTP: a file whose age the health check reads."""

import tempfile
import time
from pathlib import Path

from app.service_info import SERVICE_NAME

BEAT_SECONDS = 5.0
MAX_AGE_SECONDS = 30.0


class Heartbeat:
    """The heartbeat of one process of a container.

    Args:
        name: the name of the process.
    """

    def __init__(self, name: str) -> None:
        self._file = Path(tempfile.gettempdir(), f"{SERVICE_NAME}-{name}.alive")

    def beat(self) -> None:
        self._file.touch()

    def problem(self) -> str | None:
        """Return the problem, or None if the heartbeat is recent."""
        try:
            age = time.time() - self._file.stat().st_mtime
        except FileNotFoundError:
            return "no heartbeat yet"
        return None if age < MAX_AGE_SECONDS else f"no heartbeat for {age:.0f} s"
