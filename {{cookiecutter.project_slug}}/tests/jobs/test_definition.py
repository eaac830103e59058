from datetime import UTC, datetime
from typing import Any

import pytest
from cronsim import CronSimError

from app.jobs.definition import (
    MAX_PAUSE_SECONDS,
    Message,
    due_message,
    is_due,
    job,
    pause_after,
)
from app.jobs.registry import find_jobs


def test_pauses_between_attempts_double_up_to_a_limit_with_jitter() -> None:
    for attempt in range(1, 40):
        limit = min(MAX_PAUSE_SECONDS, 2 ** (attempt - 1))
        pauses = {pause_after(attempt) for _ in range(20)}
        assert all(limit / 2 <= pause <= limit for pause in pauses)
        assert len(pauses) > 1


def test_jobs_of_every_feature_are_found_by_name() -> None:
    jobs = find_jobs()
    assert jobs["cleanup.delete_finished_jobs"].cron == "17 * * * *"
    assert all(name == job.name for name, job in jobs.items())


def test_message_of_another_version_is_parsed() -> None:
    document: dict[str, Any] = {
        "job": "tasks.x",
        "key": "1",
        "arguments": {"word": "a"},
        "priority": 3,
    }
    assert Message(**document) == Message("tasks.x", "1", {"word": "a"})


MINUTE = datetime(2026, 3, 1, 6, 30, tzinfo=UTC)  # a Sunday


def test_due_messages_of_one_minute_have_the_same_key() -> None:
    assert due_message("tasks.x", MINUTE).key == "tasks.x:2026-03-01T06:30"
    assert due_message("tasks.x", MINUTE) == due_message("tasks.x", MINUTE)


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("* * * * *", True),
        ("*/15 * * * *", True),
        ("30 6 * * *", True),
        ("30 6 1 * *", True),
        ("30 6 * * sun", True),
        ("31 * * * *", False),
        ("30 7 * * *", False),
        ("30 6 * * 1-5", False),
    ],
)
def test_schedule_is_due_in_its_minutes_only(cron: str, *, expected: bool) -> None:
    assert is_due(cron, MINUTE) == expected


@pytest.mark.parametrize("cron", ["* * * *", "60 * * * *", "* * * * someday", "", "30 * * * * *"])
def test_job_with_a_malformed_schedule_is_refused(cron: str) -> None:
    with pytest.raises(CronSimError):
        job(cron=cron)
