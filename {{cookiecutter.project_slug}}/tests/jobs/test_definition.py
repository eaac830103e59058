from datetime import UTC, datetime

from app.jobs.definition import (
    MAX_PAUSE_SECONDS,
    Message,
    due_message,
    pause_after,
)
from app.jobs.registry import find_jobs


def test_pauses_double_up_to_a_bound_and_differ() -> None:
    for attempt in range(1, 40):
        longest = min(MAX_PAUSE_SECONDS, 2 ** (attempt - 1))
        pauses = {pause_after(attempt) for _ in range(20)}
        assert all(longest / 2 <= pause <= longest for pause in pauses)
        assert len(pauses) > 1


def test_the_jobs_of_every_feature_are_found_by_name() -> None:
    jobs = find_jobs()
    assert jobs["cleanup.delete_finished_jobs"].cron == "17 * * * *"
    assert all(name == job.name for name, job in jobs.items())


def test_a_message_of_another_version_is_understood() -> None:
    sent = {"job": "tasks.x", "key": "1", "arguments": {"word": "a"}, "priority": 3}
    assert Message.of(sent) == Message("tasks.x", "1", {"word": "a"})


def test_whoever_asks_in_the_same_minute_gets_the_same_key() -> None:
    before = datetime.now(UTC)
    keys = {due_message("tasks.x").key, due_message("tasks.x").key}
    after = datetime.now(UTC)
    assert keys <= {f"tasks.x:{moment:%Y-%m-%dT%H:%M}" for moment in (before, after)}
    assert due_message("tasks.y").key.startswith("tasks.y:")
