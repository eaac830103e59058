from datetime import UTC, datetime
from typing import Any

from app.jobs.definition import (
    MAX_PAUSE_SECONDS,
    Message,
    due_message,
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


def test_due_messages_of_one_minute_have_the_same_key() -> None:
    before = datetime.now(UTC)
    keys = {due_message("tasks.x").key, due_message("tasks.x").key}
    after = datetime.now(UTC)
    assert keys <= {f"tasks.x:{moment:%Y-%m-%dT%H:%M}" for moment in (before, after)}
    assert due_message("tasks.y").key.startswith("tasks.y:")
