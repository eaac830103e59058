"""Schedules of jobs, as each queue library reads them."""

from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import cast

import pytest

from app.jobs.queue import BACKENDS, QueueBackend


def this_minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def due_schedules(backend: QueueBackend, minute: datetime) -> list[str]:
    """Return the schedules that are due in a minute, of some that are and some that are not."""
    hour, later = minute + timedelta(hours=1), minute + timedelta(minutes=1)
    schedules = {
        "every minute": "* * * * *",
        "every hour": f"{minute.minute} * * * *",
        "every day": f"{minute.minute} {minute.hour} * * *",
        "a minute later": f"{later.minute} * * * *",
        "an hour later": f"{minute.minute} {hour.hour} * * *",
    }
    return [name for name, cron in schedules.items() if backend.is_due(cron, minute)]


@pytest.mark.parametrize("name", BACKENDS)
def test_schedule_is_due_in_its_minutes_only(name: str) -> None:
    backend = cast(QueueBackend, import_module(name))
    minute, found = None, []
    while minute != this_minute():  # again if the minute ended meanwhile
        minute = this_minute()
        found = due_schedules(backend, minute)
    assert found == ["every minute", "every hour", "every day"]
