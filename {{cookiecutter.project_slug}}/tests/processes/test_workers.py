"""Worker processes: retries, shutdown, SIGKILL, schedules, and outages of PostgreSQL."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from app.db.migrate import migrate
from app.jobs.backend import BACKENDS
from app.jobs.models import JOBS
from conftest import settings_for
from postgres_server import Postgres
from processes import HANG_SECONDS, RESERVED, Service, add_feature, run, wait_until
from worker_copies import select_backend
from worker_setup import CREATE, MODULE, SHORTER, WorkerSetup, execute


@pytest.fixture(params=BACKENDS)
async def backend(
    request: pytest.FixtureRequest, source: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    add_feature(source, "jobs", MODULE)
    select_backend(request.param, source, monkeypatch, SHORTER)
    return str(request.param)


@pytest.fixture
async def setup(migrated_database: str, backend: str, source: Path) -> AsyncIterator[WorkerSetup]:
    assert backend
    await execute(migrated_database, CREATE)
    with ExitStack() as stack:
        yield WorkerSetup(migrated_database, source, stack)


def done(service: Service) -> list[dict[str, Any]]:
    return [line for line in service.lines if line["message"] == "job done"]


async def wait_for_message(service: Service, message: str, *, times: int = 1) -> None:
    await asyncio.to_thread(
        wait_until, lambda: service.messages().count(message) >= times, doing=service
    )


async def stop(worker: Service) -> None:
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    assert worker.stderr == ""


async def test_finished_job_logs_its_request_id_and_result(setup: WorkerSetup) -> None:
    job_id = await setup.send(word="a")
    worker = setup.start()
    await setup.wait_for(["a"], doing=worker)
    await wait_for_message(worker, "job done")
    (line,) = [line for line in done(worker) if line["job"] == f"{RESERVED}.count"]
    assert (line["job_id"], line["request_id"], line["result"]) == (job_id, "request-7", "a")
    (line,) = [line for line in worker.lines if line["message"] == "counting"]
    assert line["request_id"] == "request-7"
    assert worker.stderr == ""


async def test_worker_that_cannot_open_its_resources_exits_and_loses_no_job(
    setup: WorkerSetup,
) -> None:
    await setup.send(word="a")
    module = setup.folder / "app" / "worker.py"
    content = module.read_text()
    line = "        yield WorkerContext("
    assert content.count(line) == 1
    module.write_text(content.replace(line, f"        raise RuntimeError\n{line}"))
    worker = setup.start()
    assert await asyncio.to_thread(worker.wait) == 1
    module.write_text(content)
    await setup.wait_for(["a"], doing=setup.start())


async def test_failed_job_is_retried_and_its_attempts_are_rolled_back(setup: WorkerSetup) -> None:
    await setup.send(word="a", failing=2)
    worker = setup.start()
    await setup.wait_for(["a"], doing=worker)
    retries = [line for line in worker.lines if line["message"] == "job will be retried"]
    assert [line["attempt"] for line in retries] == [1, 2]
    assert retries[0]["reason"] == "RuntimeError: not yet"


async def test_job_that_fails_every_attempt_is_kept_and_can_be_retried(setup: WorkerSetup) -> None:
    job_id = await setup.send(word="a", failing=3)
    worker = setup.start()
    await wait_for_message(worker, "job failed")
    (line,) = [line for line in worker.lines if line["message"] == "job failed"]
    assert (line["level"], line["request_id"]) == ("error", "request-7")
    assert line["arguments"]["word"] == "a"
    assert "RuntimeError: not yet" in line["exception"]
    await setup.wait_for_status(job_id, "failed")
    result = await asyncio.to_thread(run, ["app", "jobs", "retry", job_id], setup.environment())
    assert (result.returncode, result.stdout) == (0, f"{job_id}  queued\n")
    await setup.wait_for(["a"], doing=worker)


async def test_running_job_is_finished_on_sigterm(setup: WorkerSetup) -> None:
    await setup.send(word="a", slow=1, seconds=2)
    worker = setup.start(GRACEFUL_TIMEOUT_SECONDS="20")
    url = await asyncio.to_thread(lambda: worker.url)
    await wait_for_message(worker, "counting")
    worker.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    ready = await asyncio.to_thread(httpx.get, f"{url}/health/ready")
    assert ready.status_code == 503
    await setup.send(word="b")
    assert await asyncio.to_thread(worker.wait) == 0
    assert await setup.words() == ["a"], "the stopping worker must not start a new job"
    assert worker.stderr == ""
    await setup.wait_for(["a", "b"], doing=setup.start())


async def test_job_over_the_graceful_timeout_is_done_by_another_worker(setup: WorkerSetup) -> None:
    job_id = await setup.send(word="a", slow=1, seconds=600)
    worker = setup.start(GRACEFUL_TIMEOUT_SECONDS="1")
    await wait_for_message(worker, "counting")
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0  # long before the job would end
    assert await setup.words() == []
    assert not [line for line in worker.lines if line["level"] == "error"]
    assert (await setup.statuses())[job_id] == "queued"
    (row,) = await setup.fetch(select(JOBS.c.attempts).where(JOBS.c.id == uuid.UUID(job_id)))
    assert row["attempts"] == 0, "an attempt that the worker ends does not count"
    await setup.wait_for(["a"], doing=setup.start())


async def test_jobs_of_killed_workers_are_done_exactly_once(setup: WorkerSetup) -> None:
    """Send SIGKILL to every process of a worker, twice, while 500 jobs are queued or running."""
    words = [f"{number:03}" for number in range(500)]
    await setup.send_words("add", words)
    for share in (0.1, 0.3):
        victim = setup.start(WORKER_CONCURRENCY="4")
        async with asyncio.timeout(HANG_SECONDS):
            while len(await setup.words()) < share * len(words):
                await asyncio.sleep(0.02)
        os.killpg(victim.process.pid, signal.SIGKILL)
        await asyncio.to_thread(victim.wait)
    before = len(await setup.words())
    assert before < len(words)
    survivors = [setup.start(WORKER_CONCURRENCY="4") for _ in range(2)]
    await setup.wait_for(words, doing=survivors[0])
    async with asyncio.timeout(HANG_SECONDS):
        while set((await setup.statuses()).values()) != {"succeeded"}:
            await asyncio.sleep(0.1)
    assert await setup.words() == words
    print(f"{before} of 500 done by the killed workers, the rest by the survivors")


async def test_job_that_kills_its_worker_fails_after_its_attempts(setup: WorkerSetup) -> None:
    job_id = await setup.send("kill")
    async with asyncio.timeout(HANG_SECONDS):
        while (await setup.statuses())[job_id] != "failed":
            worker = setup.start()
            while worker.process.poll() is None and (await setup.statuses())[job_id] != "failed":
                await asyncio.sleep(0.1)
    (row,) = await setup.fetch(select(JOBS.c.problem).where(JOBS.c.id == uuid.UUID(job_id)))
    assert row["problem"]["type"] == "urn:problem:worker-ended"
    (tries,) = await setup.fetch(text("SELECT last_value FROM _test_tries"))
    assert tries["last_value"] == 2


async def test_jobs_start_by_priority_and_after_their_delay(setup: WorkerSetup) -> None:
    await setup.send(word="normal")
    await setup.send(word="urgent", priority=9)
    worker = setup.start(WORKER_CONCURRENCY="1")
    await setup.send(word="late", priority=10, delay=timedelta(seconds=5))
    await wait_for_message(worker, "counting", times=3)
    order = [line["word"] for line in worker.lines if line["message"] == "counting"]
    assert [word for word in order if word != "late"] == ["urgent", "normal"]
    (row,) = await setup.fetch(
        select((JOBS.c.started_at >= JOBS.c.run_after).label("waited")).where(
            JOBS.c.arguments["word"].astext == "late"
        )
    )
    assert row["waited"]


async def test_concurrency_of_a_job_is_limited_over_all_workers(setup: WorkerSetup) -> None:
    words = list("abcd")
    await setup.send_words("alone", words)
    workers = [setup.start(WORKER_CONCURRENCY="4") for _ in range(2)]

    def steps() -> list[tuple[str, str]]:
        lines = [line for worker in workers for line in worker.lines if "word" in line]
        return [
            (line["message"], line["word"])
            for line in sorted(lines, key=lambda line: str(line["timestamp"]))
        ]

    await asyncio.to_thread(wait_until, lambda: len(steps()) == 8, doing=workers[0])
    begun = [word for message, word in steps() if message == "begin"]
    assert sorted(begun) == words
    assert steps() == [(message, word) for word in begun for message in ("begin", "end")]


async def test_scheduled_job_of_several_workers_is_done_once(setup: WorkerSetup) -> None:
    workers = [setup.start() for _ in range(3)]
    for worker in workers:
        await wait_for_message(worker, "listening")
    async with asyncio.timeout(HANG_SECONDS):
        while not await setup.ticks():
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)  # another worker would repeat it by now
    for worker in workers:
        await stop(worker)
    rows = await setup.fetch(select(JOBS.c.key).where(JOBS.c.name == f"{RESERVED}.tick"))
    assert await setup.ticks() == len(rows)
    assert len({row["key"] for row in rows}) == len(rows)


async def test_job_of_a_newer_version_waits_for_a_worker_that_has_it(setup: WorkerSetup) -> None:
    module = setup.folder / "app" / "features" / RESERVED / "jobs.py"
    content = module.read_text()
    module.write_text(content.replace("async def count(", "async def other("))
    job_id = await setup.send(word="a")
    old = setup.start()
    await setup.send("add", word="b")
    await setup.wait_for(["b"], doing=old)
    await asyncio.sleep(2)
    assert (await setup.statuses())[job_id] == "queued"
    module.write_text(content)
    new = setup.start()
    await setup.wait_for(["a", "b"], doing=new)


async def test_jobs_survive_a_restart_of_postgresql(
    postgres: Postgres, backend: str, source: Path
) -> None:
    await migrate(settings_for(postgres.url))
    await execute(postgres.url, CREATE)
    words = [f"{number:03}" for number in range(200)]
    with ExitStack() as stack:
        setup = WorkerSetup(postgres.url, source, stack)
        await setup.send_words("add", words)
        await setup.send(word="retried", failing=2)
        worker = setup.start(WORKER_CONCURRENCY="4")
        async with asyncio.timeout(HANG_SECONDS):
            while len(await setup.words()) < 20:
                await asyncio.sleep(0.02)
        postgres.stop()
        await asyncio.sleep(1)
        postgres.start()
        await setup.wait_for([*words, "retried"], doing=worker)
        assert "worker failed" not in worker.messages(), backend
        await stop(worker)


async def test_worker_that_starts_before_the_migration_waits_for_it(
    empty_database: str, backend: str, source: Path
) -> None:
    with ExitStack() as stack:
        setup = WorkerSetup(empty_database, source, stack)
        worker = setup.start()
        await wait_for_message(worker, "worker waits for the database")
        ready = await asyncio.to_thread(httpx.get, f"{worker.url}/health/ready", timeout=60)
        assert (ready.status_code, backend) == (503, backend)
        await migrate(settings_for(empty_database))
        await execute(empty_database, CREATE)
        await setup.send(word="a")
        await setup.wait_for(["a"], doing=worker)
        await stop(worker)


async def test_worker_without_a_database_waits_for_it(setup: WorkerSetup) -> None:
    """The start does not fail, so a platform does not give up on the worker."""
    wrong = f"{setup.database_url}_missing"
    env = setup.environment() | {"DATABASE_URL": wrong}
    with Service(["app", "worker"], env) as worker:
        url = await asyncio.to_thread(lambda: worker.url)
        live, ready = [
            (await asyncio.to_thread(httpx.get, f"{url}/health/{name}", timeout=60)).status_code
            for name in ("live", "ready")
        ]
        assert (live, ready) == (200, 503)
        await stop(worker)
