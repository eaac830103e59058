import pytest
from cronsim import CronSimError

from app.jobs.definition import MAX_PAUSE_SECONDS, job, pause_after
from app.jobs.registry import find_jobs


def test_pauses_between_attempts_double_up_to_a_limit_with_jitter() -> None:
    for attempt in range(1, 40):
        limit = min(MAX_PAUSE_SECONDS, 2 ** (attempt - 1))
        pauses = {pause_after(attempt) for _ in range(20)}
        assert all(limit / 2 <= pause <= limit for pause in pauses)
        assert len(pauses) > 1


def test_jobs_of_every_feature_are_found_by_name() -> None:
    jobs = find_jobs()
    assert jobs["cleanup.delete_old_jobs"].cron == "17 * * * *"
    assert all(name == job.name for name, job in jobs.items())


@pytest.mark.parametrize("cron", ["* * * *", "60 * * * *", "* * * * someday", "", "30 * * * * *"])
def test_job_with_a_malformed_schedule_is_refused(cron: str) -> None:
    with pytest.raises(CronSimError):
        job(cron=cron)
