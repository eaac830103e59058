import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import Executable, event, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bound_contextvars

from app.db.session import Database, open_database
from app.errors import Conflict, Unavailable
from app.jobs.administration import cancel
from app.jobs.attempts import UNKNOWN_PAUSE_SECONDS, attempt
from app.jobs.definition import Job
from app.jobs.models import JOBS
from app.settings import Settings
from conftest import Lines
from sql import fetch
from stored_jobs import context_of, job_of, store, stored

_WRITE = text("CREATE TABLE IF NOT EXISTS _test_written (word text)")
_IS_WRITTEN = text("SELECT to_regclass('_test_written') IS NOT NULL AS written")


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


async def execute(database: Database, statement: Executable) -> None:
    async with database.session() as session:
        await session.execute(statement)


async def is_written(database: Database) -> bool:
    (row,) = await fetch(database, _IS_WRITTEN)
    return bool(row["written"])


async def test_finished_job_has_its_result(database: Database, lines: Lines) -> None:
    async def run(session: AsyncSession, *, word: str) -> dict[str, str]:
        await fetch(session, text("SELECT pg_sleep(0.01)"))
        return {"seen": word}

    job = job_of(run)
    with bound_contextvars(request_id="request-7"):
        job_id = await store(database, job, word="a")
    assert await attempt(context_of(database, job), job_id) is None
    row = await stored(database, job_id)
    assert (row["status"], row["result"], row["attempts"]) == ("succeeded", {"seen": "a"}, 1)
    assert row["created_at"] <= row["started_at"]
    assert row["finished_at"] - row["started_at"] >= timedelta(milliseconds=10)
    (line,) = lines()
    assert (line["message"], line["result"]) == ("job done", {"seen": "a"})
    assert (line["job"], line["job_id"], line["request_id"]) == (
        "_test.job",
        str(job_id),
        "request-7",
    )


async def test_concurrent_jobs_start_in_one_statement(database: Database) -> None:
    async def run(session: AsyncSession) -> None: ...

    job = job_of(run)
    job_ids = [await store(database, job) for _ in range(3)]
    context, statements = context_of(database, job), list[str]()

    def record(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", record)
    await asyncio.gather(*(attempt(context, job_id) for job_id in job_ids))
    assert sum("SET status=$1, attempts=" in statement for statement in statements) == 1
    for job_id in job_ids:
        row = await stored(database, job_id)
        assert (row["status"], row["attempts"], row["result"]) == ("succeeded", 1, None)
        assert row["worker_id"] == context.worker_id


async def test_concurrent_attempts_at_a_job_take_effect_once(
    database: Database, lines: Lines
) -> None:
    started = asyncio.Barrier(3)

    async def run(session: AsyncSession) -> None:
        await fetch(session, text("SELECT 1"))
        await started.wait()
        await session.execute(text("INSERT INTO workers (id, host, concurrency) "
            "VALUES (gen_random_uuid(), '_test', 1)"))  # fmt: skip

    job = job_of(run, attempts=3)
    job_id = await store(database, job)
    context = context_of(database, job)
    await asyncio.gather(*(attempt(context, job_id) for _ in range(3)))
    rows = await fetch(database, text("SELECT 1 FROM workers WHERE host = '_test'"))
    assert len(rows) == 1
    assert sorted(line["message"] for line in lines()) == [
        "job done",
        "job was done before",
        "job was done before",
    ]


async def test_attempt_at_a_finished_job_does_nothing(database: Database, lines: Lines) -> None:
    runs: list[str] = []

    async def run(_session: AsyncSession, *, word: str) -> None:
        runs.append(word)

    job = job_of(run)
    job_id = await store(database, job, word="a")
    for _ in range(2):
        assert await attempt(context_of(database, job), job_id) is None
    assert await attempt(context_of(database, job), uuid.uuid4()) is None
    assert runs == ["a"]
    assert [line["message"] for line in lines()] == ["job done"] + ["job was done before"] * 2


async def test_failed_attempt_is_rolled_back_and_retried(database: Database, lines: Lines) -> None:
    async def run(session: AsyncSession, *, word: str) -> None:
        await session.execute(_WRITE)
        raise ValueError(f"no {word}")

    job = job_of(run)
    job_id = await store(database, job, word="a")
    pause = await attempt(context_of(database, job), job_id)
    assert pause is not None
    assert 0.5 <= pause <= 1
    assert not await is_written(database)
    row = await stored(database, job_id)
    assert (row["status"], row["attempts"]) == ("queued", 1)
    assert row["run_after"] > row["started_at"]
    (line,) = lines()
    assert (line["message"], line["reason"]) == ("job will be retried", "ValueError: no a")


async def test_last_failed_attempt_is_kept_without_internal_text(
    database: Database, lines: Lines
) -> None:
    async def run(_session: AsyncSession, *, word: str) -> None:
        raise ValueError(f"no {word}")

    job = job_of(run, attempts=2)
    job_id = await store(database, job, word="a")
    context = context_of(database, job)
    assert await attempt(context, job_id) is not None
    assert await attempt(context, job_id) is None
    row = await stored(database, job_id)
    assert (row["status"], row["attempts"]) == ("failed", 2)
    assert row["problem"] == {
        "type": "urn:problem:job-failed",
        "title": "Job Failed",
        "detail": None,
    }
    line = lines()[-1]
    assert (line["message"], line["level"]) == ("job failed", "error")
    assert line["arguments"] == {"word": "a"}
    assert "ValueError: no a" in line["exception"]


async def test_error_of_a_service_fails_at_once_with_its_problem(database: Database) -> None:
    async def run(_session: AsyncSession) -> None:
        raise Conflict("The page is taken.")

    job = job_of(run, attempts=5)
    job_id = await store(database, job)
    assert await attempt(context_of(database, job), job_id) is None
    row = await stored(database, job_id)
    assert (row["status"], row["problem"]["detail"]) == ("failed", "The page is taken.")


async def test_temporary_error_of_a_service_is_retried(database: Database) -> None:
    async def run(_session: AsyncSession) -> None:
        raise Unavailable("The shop is closed.")

    job = job_of(run)
    job_id = await store(database, job)
    assert await attempt(context_of(database, job), job_id) is not None


async def test_job_that_ends_its_worker_each_time_fails(database: Database, lines: Lines) -> None:
    async def run(_session: AsyncSession) -> None:
        raise AssertionError("it has no attempt left")

    job = job_of(run, attempts=3)
    job_id = await store(database, job)
    # Three workers were killed: each has started an attempt, and recorded no end.
    await execute(database, update(JOBS).values(status="running", attempts=3))
    assert await attempt(context_of(database, job), job_id) is None
    row = await stored(database, job_id)
    assert (row["status"], row["problem"]["type"]) == ("failed", "urn:problem:worker-ended")
    assert [line["message"] for line in lines()] == ["job failed"]


async def test_job_over_its_timeout_is_retried(database: Database, lines: Lines) -> None:
    async def run(session: AsyncSession) -> None:
        await fetch(session, text("SELECT pg_sleep(4)"))

    job = job_of(run, timeout_seconds=0.2)
    job_id = await store(database, job)
    assert await attempt(context_of(database, job), job_id) is not None
    row = await stored(database, job_id)
    assert (row["status"], row["problem"]["type"]) == ("queued", "urn:problem:job-timed-out")
    (line,) = [line for line in lines() if line["message"] == "job will be retried"]
    assert line["reason"].startswith("TimeoutError")


async def test_result_that_is_not_json_fails_the_attempt(database: Database, lines: Lines) -> None:
    async def run(_session: AsyncSession) -> uuid.UUID:
        return uuid.UUID(int=7)

    job = job_of(run)
    job_id = await store(database, job)
    assert await attempt(context_of(database, job), job_id) is not None
    assert "not JSON serializable" in lines()[-1]["reason"]


async def test_job_of_another_version_waits_for_a_worker_that_has_it(
    database: Database, lines: Lines
) -> None:
    async def run(_session: AsyncSession) -> None: ...

    job = job_of(run)
    job_id = await store(database, job)
    assert await attempt(context_of(database), job_id) == UNKNOWN_PAUSE_SECONDS
    row = await stored(database, job_id)
    assert (row["status"], row["attempts"]) == ("queued", 0)
    assert [line["message"] for line in lines()] == ["job of another version"]
    await execute(database, update(JOBS).values(run_after=row["created_at"]))
    assert await attempt(context_of(database, job), job_id) is None
    assert (await stored(database, job_id))["status"] == "succeeded"


async def test_canceled_running_job_has_no_effect(database: Database, lines: Lines) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    async def run(session: AsyncSession) -> None:
        await session.execute(_WRITE)
        started.set()
        await may_end.wait()

    job = job_of(run)
    job_id = await store(database, job)
    running = asyncio.create_task(attempt(context_of(database, job), job_id))
    await started.wait()
    assert await cancel(job_id, database)
    may_end.set()
    assert await running is None
    assert not await is_written(database)
    assert (await stored(database, job_id))["status"] == "canceled"
    assert [line["message"] for line in lines()] == ["job was done before"]


async def test_job_with_own_transactions_receives_the_database(database: Database) -> None:
    async def run(given: Database) -> str:
        async with given.session() as session:
            (row,) = await fetch(session, text("SELECT 'a' AS word"))
        return str(row["word"])

    job = Job("_test.job", run, 60, 2, has_own_transactions=True)
    job_id = await store(database, job)
    assert await attempt(context_of(database, job), job_id) is None
    assert (await stored(database, job_id))["result"] == "a"


async def test_attempts_are_counted_by_outcome(database: Database) -> None:
    async def run(_session: AsyncSession, *, fails: bool) -> None:
        if fails:
            raise RuntimeError

    counted: list[tuple[str, str]] = []
    job = job_of(run, attempts=2)
    context = context_of(database, job)
    object.__setattr__(context, "count", lambda name, outcome, _: counted.append((name, outcome)))
    for fails, attempts in ((False, 2), (True, 2)):
        job_id = await store(database, job, fails=fails)
        for _ in range(attempts):
            await attempt(context, job_id)
    assert counted == [("_test.job", x) for x in ("succeeded", "retried", "failed")]
