import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, text

from app.db.database import Database, Transaction, open_database
from app.jobs.attempts import attempt
from app.jobs.definition import Job, JobFunction, Message
from app.jobs.models import FinishedJobModel as Row
from app.settings import Settings
from conftest import Lines

_NOTES = select(Row.key, Row.job, Row.result)
_WRITE = text("CREATE TABLE IF NOT EXISTS written (word text)")
_MESSAGE = Message("test.job", "test.job:1", {"word": "a"}, "request-7")


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


def job_of(run: JobFunction, *, timeout_seconds: float = 10, attempts: int = 2) -> Job:
    return Job("test.job", run, timeout_seconds, attempts)


async def notes(database: Database) -> list[dict[str, object]]:
    return [dict(row) for row in await database.fetch(_NOTES)]


async def test_what_a_job_did_is_noted_with_its_result(database: Database, lines: Lines) -> None:
    async def run(_transaction: Transaction, *, word: str) -> dict[str, str]:
        return {"seen": word}

    assert await attempt(database, job_of(run), _MESSAGE, 1) is None
    note = {"key": "test.job:1", "job": "test.job", "result": {"seen": "a"}}
    assert await notes(database) == [note]
    (line,) = lines()
    assert (line["message"], line["result"]) == ("job done", {"seen": "a"})
    assert (line["job"], line["job_key"], line["request_id"]) == (
        "test.job",
        "test.job:1",
        "request-7",
    )


async def test_of_the_same_job_at_once_one_is_done(database: Database, lines: Lines) -> None:
    runs: list[str] = []

    async def run(_transaction: Transaction, *, word: str) -> None:
        runs.append(word)
        await asyncio.sleep(0.2)

    await asyncio.gather(*(attempt(database, job_of(run), _MESSAGE, 1) for _ in range(3)))
    assert runs == ["a"]
    assert sorted(line["message"] for line in lines()) == [
        "job done",
        "job is done already",
        "job is done already",
    ]


async def test_a_job_that_fails_changes_nothing_and_is_tried_again(
    database: Database, lines: Lines
) -> None:
    async def run(transaction: Transaction, *, word: str) -> None:
        await transaction.connection.execute(_WRITE)
        raise ValueError(f"no {word}")

    pause = await attempt(database, job_of(run), _MESSAGE, 1)
    assert pause is not None
    assert 0.5 <= pause <= 1
    assert await notes(database) == []
    (row,) = await database.fetch(text("SELECT to_regclass('written') AS found"))
    assert row.found is None
    (line,) = lines()
    assert (line["message"], line["reason"]) == ("job will be tried again", "ValueError: no a")
    assert line["request_id"] == "request-7"


async def test_a_job_that_fails_for_the_last_time_says_why(
    database: Database, lines: Lines
) -> None:
    async def run(_transaction: Transaction, *, word: str) -> None:
        raise ValueError(f"no {word}")

    assert await attempt(database, job_of(run), _MESSAGE, 2) is None
    (line,) = lines()
    assert (line["message"], line["level"]) == ("job failed", "error")
    assert line["arguments"] == {"word": "a"}
    assert "ValueError: no a" in line["exception"]


async def test_a_job_that_takes_too_long_is_a_failure(database: Database, lines: Lines) -> None:
    async def run(transaction: Transaction, *, word: str) -> None:  # noqa: ARG001 - part of a job
        await transaction.fetch(text("SELECT pg_sleep(4)"))

    assert await attempt(database, job_of(run, timeout_seconds=0.2), _MESSAGE, 1) is not None
    assert await notes(database) == []
    (line,) = [line for line in lines() if line["message"] == "job will be tried again"]
    assert line["reason"].startswith("TimeoutError")


async def test_a_result_that_is_no_json_is_a_failure(database: Database, lines: Lines) -> None:
    async def run(_transaction: Transaction, *, word: str) -> uuid.UUID:  # noqa: ARG001 - part of a job
        return uuid.UUID(int=7)

    assert await attempt(database, job_of(run), _MESSAGE, 1) is not None
    assert await notes(database) == []
    assert "not JSON serializable" in lines()[-1]["reason"]
