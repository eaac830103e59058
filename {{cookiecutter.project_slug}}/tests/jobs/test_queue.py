"""Jobs are enqueued after a commit, never after a rollback, and in bounded time."""

import subprocess
import sys
import time
from typing import cast

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import open_database
from app.errors import Conflict
from app.jobs.definition import Job, Message
from app.jobs.queue import BACKENDS, SEND_SECONDS, Queue, open_queue
from app.service_info import SERVICE_NAME
from app.settings import Settings
from conftest import Lines, settings_for
from valkey_server import start_valkey


async def run(_session: AsyncSession, *, word: str) -> str:
    return word


JOB = Job("test.job", run, 1, 1)


async def test_job_is_enqueued_after_a_commit_and_not_after_a_rollback(settings: Settings) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with open_database(settings) as database:
        async with database.session() as session:
            Queue(send).enqueue(session, JOB, key="1", word="a")
            assert sent == []
        assert sent == [Message("test.job", "test.job:1", {"word": "a"}, None)]
        with pytest.raises(Conflict):
            async with database.session() as session:
                Queue(send).enqueue(session, JOB, key="2", word="b")
                raise Conflict
    assert len(sent) == 1


async def enqueue(settings: Settings, backend: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """Commit a transaction with one job, and return the seconds that it took."""
    monkeypatch.setattr("app.jobs.queue.BACKENDS", [backend])
    async with open_database(settings) as database, open_queue(settings.redis_url) as queue:
        started = time.monotonic()
        async with database.session() as session:
            queue.enqueue(session, JOB, key="1", word="a")
        return time.monotonic() - started


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("outage", ["stop", "freeze"])
async def test_enqueue_without_a_response_from_redis_succeeds_and_logs_the_job(
    database_url: str, lines: Lines, monkeypatch: pytest.MonkeyPatch, backend: str, outage: str
) -> None:
    with start_valkey() as valkey:
        settings = settings_for(database_url, redis_url=valkey.url)
        getattr(valkey, outage)()
        assert await enqueue(settings, backend, monkeypatch) < SEND_SECONDS + 2
    (line,) = lines()
    assert (line["message"], line["level"]) == ("job not enqueued", "error")
    assert (line["job"], line["job_key"]) == ("test.job", "test.job:1")
    assert line["arguments"] == {"word": "a"}
    assert "CancelledError" not in line["reason"]


async def test_enqueue_that_fails_in_the_library_succeeds_and_logs_the_cause(
    settings: Settings, lines: Lines
) -> None:
    async def send(_message: Message) -> None:
        raise RuntimeError from ValueError("not JSON")

    async with open_database(settings) as database, database.session() as session:
        Queue(send).enqueue(session, JOB, key="1", word="a")
    (line,) = lines()
    assert (line["message"], line["reason"]) == ("job not enqueued", "ValueError: not JSON")


async def test_keys_in_redis_have_the_prefix_of_the_service(
    database_url: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_valkey() as valkey:
        settings = settings_for(database_url, redis_url=valkey.url)
        for backend in BACKENDS:
            await enqueue(settings, backend, monkeypatch)
        async with Redis.from_url(valkey.url) as redis:
            keys = cast(list[bytes], await redis.keys())
    assert "job not enqueued" not in {line["message"] for line in lines()}
    assert len(keys) >= len(BACKENDS)
    assert all(key.startswith(f"{SERVICE_NAME}:".encode()) for key in keys), keys


async def test_enqueue_without_redis_url_logs_the_job(
    database_url: str, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(database_url, redis_url=None)
    await enqueue(settings, BACKENDS[0], monkeypatch)
    (line,) = lines()
    assert (line["message"], line["reason"]) == ("job not enqueued", "REDIS_URL is not set")


def test_backend_is_not_imported_before_the_queue_is_opened() -> None:
    program = "import sys, app.main, app.cli; print(*sys.modules)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "app.jobs.queue" in result.stdout.split()
    assert not set(BACKENDS) & set(result.stdout.split())
