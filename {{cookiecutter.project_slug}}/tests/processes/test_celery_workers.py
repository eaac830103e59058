"""Workers with Celery, whose Redis is emptied or away."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from processes import HANG_SECONDS, add_feature, environment, run
from worker_copies import select_backend
from worker_setup import CREATE, MODULE, SHORTER, WorkerSetup, execute


async def test_jobs_survive_a_redis_that_is_emptied_or_away(
    migrated_database: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_feature(source, "jobs", MODULE)
    select_backend("app.jobs.celery", source, monkeypatch, SHORTER)
    await execute(migrated_database, CREATE)
    with ExitStack() as stack:
        await lose_redis(WorkerSetup(migrated_database, source, stack))


async def lose_redis(setup: WorkerSetup) -> None:
    words = [f"{number:03}" for number in range(100)]
    await setup.send_words("add", words[:50])
    worker = setup.start(WORKER_CONCURRENCY="2")
    async with asyncio.timeout(HANG_SECONDS):
        while not await setup.words():
            await asyncio.sleep(0.02)
    setup.valkey.empty()
    setup.valkey.freeze()
    await setup.send_words("add", words[50:])  # enqueueing does not need Redis
    await asyncio.sleep(7)  # longer than the timeout of a command
    setup.valkey.thaw()
    await setup.wait_for(words, doing=worker)


async def test_worker_without_redis_url_names_the_setting(
    database_url: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    select_backend("app.jobs.celery", source, monkeypatch, SHORTER)
    env = environment(database_url, PYTHONPATH=str(source))
    result = await asyncio.to_thread(run, ["app", "worker"], env)
    assert result.returncode == 1
    assert result.stderr == ("Error: REDIS_URL is missing: set it to the Redis that Celery uses\n")
