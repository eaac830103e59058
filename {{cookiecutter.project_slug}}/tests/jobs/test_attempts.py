import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, open_database
from app.jobs.attempts import attempt
from app.jobs.definition import Job, JobFunction, Message
from app.jobs.models import FinishedJob
from app.jobs.worker_context import WorkerContext
from app.settings import Settings
from conftest import Lines
from sql import fetch

_RECORDS = select(FinishedJob.key, FinishedJob.job, FinishedJob.result)
_WRITE = text("CREATE TABLE IF NOT EXISTS written (word text)")
_MESSAGE = Message("test.job", "test.job:1", {"word": "a"}, "request-7")


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


def job_of(run: JobFunction, *, timeout_seconds: float = 10, attempts: int = 2) -> Job:
    return Job("test.job", run, timeout_seconds, attempts)


async def records(database: Database) -> list[dict[str, object]]:
    return [dict(row) for row in await fetch(database, _RECORDS)]


async def test_finished_job_leaves_a_record_with_its_result(
    database: Database, lines: Lines
) -> None:
    async def run(_session: AsyncSession, *, word: str) -> dict[str, str]:
        return {"seen": word}

    assert await attempt(WorkerContext(database), job_of(run), _MESSAGE, 1) is None
    record = {"key": "test.job:1", "job": "test.job", "result": {"seen": "a"}}
    assert await records(database) == [record]
    (line,) = lines()
    assert (line["message"], line["result"]) == ("job done", {"seen": "a"})
    assert (line["job"], line["job_key"], line["request_id"]) == (
        "test.job",
        "test.job:1",
        "request-7",
    )


async def test_concurrent_deliveries_of_a_job_run_it_once(database: Database, lines: Lines) -> None:
    runs: list[str] = []

    async def run(_session: AsyncSession, *, word: str) -> None:
        runs.append(word)
        await asyncio.sleep(0.2)

    await asyncio.gather(
        *(attempt(WorkerContext(database), job_of(run), _MESSAGE, 1) for _ in range(3))
    )
    assert runs == ["a"]
    assert sorted(line["message"] for line in lines()) == [
        "job done",
        "job was done before",
        "job was done before",
    ]


async def test_failed_attempt_is_rolled_back_and_retried(database: Database, lines: Lines) -> None:
    async def run(session: AsyncSession, *, word: str) -> None:
        await session.execute(_WRITE)
        raise ValueError(f"no {word}")

    pause = await attempt(WorkerContext(database), job_of(run), _MESSAGE, 1)
    assert pause is not None
    assert 0.5 <= pause <= 1
    assert await records(database) == []
    (row,) = await fetch(database, text("SELECT to_regclass('written') AS found"))
    assert row.found is None
    (line,) = lines()
    assert (line["message"], line["reason"]) == ("job will be retried", "ValueError: no a")
    assert line["request_id"] == "request-7"


async def test_last_failed_attempt_is_logged_as_an_error(database: Database, lines: Lines) -> None:
    async def run(_session: AsyncSession, *, word: str) -> None:
        raise ValueError(f"no {word}")

    assert await attempt(WorkerContext(database), job_of(run), _MESSAGE, 2) is None
    (line,) = lines()
    assert (line["message"], line["level"]) == ("job failed", "error")
    assert line["arguments"] == {"word": "a"}
    assert "ValueError: no a" in line["exception"]


async def test_attempt_over_a_reduced_limit_is_the_last(database: Database, lines: Lines) -> None:
    async def run(_session: AsyncSession, *, word: str) -> None:
        raise RuntimeError(word)

    assert await attempt(WorkerContext(database), job_of(run, attempts=2), _MESSAGE, 6) is None
    (line,) = lines()
    assert (line["message"], line["attempt"]) == ("job failed", 6)


async def test_job_over_its_timeout_is_retried(database: Database, lines: Lines) -> None:
    async def run(session: AsyncSession, *, word: str) -> None:  # noqa: ARG001 - passed to every job
        await fetch(session, text("SELECT pg_sleep(4)"))

    assert (
        await attempt(WorkerContext(database), job_of(run, timeout_seconds=0.2), _MESSAGE, 1)
        is not None
    )
    assert await records(database) == []
    (line,) = [line for line in lines() if line["message"] == "job will be retried"]
    assert line["reason"].startswith("TimeoutError")


async def test_result_that_is_not_json_fails_the_attempt(database: Database, lines: Lines) -> None:
    async def run(_session: AsyncSession, *, word: str) -> uuid.UUID:  # noqa: ARG001 - passed to every job
        return uuid.UUID(int=7)

    assert await attempt(WorkerContext(database), job_of(run), _MESSAGE, 1) is not None
    assert await records(database) == []
    assert "not JSON serializable" in lines()[-1]["reason"]
