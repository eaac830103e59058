"""Worker processes: retries, shutdown, SIGKILL and an unavailable Redis."""

import asyncio
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text

from app.db.session import open_database
from app.jobs.definition import Message
from app.jobs.queue import BACKENDS, QueueBackend
from app.service_info import SERVICE_NAME
from conftest import settings_for
from processes import APP, Service, environment, wait_until
from sql import fetch
from valkey_server import Valkey, start_valkey

JOBS = '''
"""Jobs for a test. A sequence counts the attempts: a rollback does not reset it."""

import asyncio

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.definition import job

_TRY = text("SELECT nextval('tries')")
_INSERT = text("INSERT INTO counted (word) VALUES (:word)")


@job(attempts=3)
async def count(
    session: AsyncSession, *, word: str, seconds: float = 0, slow: int = 0, failing: int = 0
) -> str:
    """Insert a word; the first `slow` attempts take some seconds, the first `failing` fail."""
    attempt = await session.scalar(_TRY)
    await session.execute(_INSERT, {"word": word})
    structlog.get_logger().info("counting", word=word)
    if attempt <= slow:
        await asyncio.sleep(seconds)
    if attempt <= failing:
        raise RuntimeError("not yet")
    return word


@job(cron="* * * * *")
async def tick(session: AsyncSession) -> None:
    await session.execute(_INSERT, {"word": "tick"})
'''
CREATE = ("CREATE TABLE counted (word text)", "CREATE SEQUENCE tries")
DROP = ("DROP TABLE counted", "DROP SEQUENCE tries")
# Shorter times for tests. A lease must outlast a pause of a busy machine.
SHORTER = {
    "LEASE_SECONDS = 20.0": "LEASE_SECONDS = 4.0",
    "BEAT_SECONDS = 5.0": "BEAT_SECONDS = 1.0",
    "longest + MAX_PAUSE_SECONDS + LEASE_MARGIN_SECONDS": "10.0",
}


class WorkerSetup:
    """A queue, a table that the jobs write to, and processes with one backend."""

    def __init__(self, backend: str, database_url: str, valkey: Valkey, source: Path) -> None:
        self._database_url = database_url
        self.folder = source
        self._stack = ExitStack()
        self.settings = settings_for(database_url, redis_url=valkey.url)
        self.valkey = valkey
        self.backend = cast(QueueBackend, import_module(backend))

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of a process that runs the copy of the source."""
        return environment(
            self._database_url,
            REDIS_URL=self.valkey.url,
            PYTHONPATH=str(self.folder),
            TMPDIR=str(self.folder),
            **variables,
        )

    def start(self, command: str, **variables: str) -> Service:
        env = self.environment(**variables)
        return self._stack.enter_context(Service([*APP, command], env))

    async def send(self, *, key: str | None = None, **arguments: object) -> None:
        message = Message("counting.count", key or str(uuid.uuid4()), arguments, "request-7")
        # A busy machine may send late.
        async with self.backend.open_sender(self.valkey.url, timeout_seconds=10) as send:
            await send(message)

    async def words(self) -> list[str]:
        """Return the committed words."""
        async with open_database(self.settings) as database:
            rows = await fetch(database, text("SELECT word FROM counted ORDER BY word"))
        return [row.word for row in rows]

    async def wait_for(self, words: list[str], *, doing: Service, seconds: float = 40) -> None:
        for _ in range(int(seconds / 0.1)):
            if await self.words() == words:
                return
            assert doing.process.poll() is None, doing.stdout + doing.stderr
            await asyncio.sleep(0.1)
        raise AssertionError(f"{await self.words()}\n{doing.stdout}\n{doing.stderr}")

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(params=BACKENDS)
async def setup(
    request: pytest.FixtureRequest,
    database_url: str,
    source: Path,
    clean_tables: None,
) -> AsyncIterator[WorkerSetup]:
    assert clean_tables is None
    counting = source / "app" / "features" / "counting"
    counting.mkdir()
    (counting / "__init__.py").touch()
    (counting / "jobs.py").write_text(JOBS)
    for path in (source / "app" / "jobs").glob("*.py"):
        content = path.read_text()
        for long, short in SHORTER.items():
            content = content.replace(long, short)
        if path.name == "queue.py":
            for backend in set(BACKENDS) - {request.param}:
                content = content.replace(f'    "{backend}",', "")
        path.write_text(content)
    await execute(database_url, CREATE)
    with start_valkey() as valkey:
        setup = WorkerSetup(request.param, database_url, valkey, source)
        try:
            yield setup
        finally:
            setup.close()
            await execute(database_url, DROP)


async def execute(database_url: str, statements: tuple[str, ...]) -> None:
    async with (
        open_database(settings_for(database_url)) as database,
        database.probe() as connection,
    ):
        for statement in statements:
            await connection.execute(text(statement))


def done(service: Service) -> list[dict[str, Any]]:
    return [line for line in service.lines if line["message"] == "job done"]


async def wait_for_message(service: Service, message: str, *, times: int = 1) -> None:
    await asyncio.to_thread(
        wait_until, lambda: service.messages().count(message) >= times, doing=service
    )


async def test_finished_job_logs_its_request_id_and_result(setup: WorkerSetup) -> None:
    await setup.send(key="k", word="a")
    worker = setup.start("worker")
    await setup.wait_for(["a"], doing=worker)
    await wait_for_message(worker, "job done")
    (line,) = done(worker)
    assert (line["job"], line["job_key"]) == ("counting.count", "k")
    assert (line["request_id"], line["result"]) == ("request-7", "a")
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
    worker = setup.start("worker")
    assert await asyncio.to_thread(worker.wait) == 1
    module.write_text(content)
    other = setup.start("worker")
    await setup.wait_for(["a"], doing=other)


async def test_failed_job_is_retried_and_its_attempts_are_rolled_back(setup: WorkerSetup) -> None:
    await setup.send(word="a", failing=2)
    worker = setup.start("worker")
    await wait_for_message(worker, "job done")
    assert await setup.words() == ["a"]
    retries = [line for line in worker.lines if line["message"] == "job will be retried"]
    assert [line["attempt"] for line in retries] == [1, 2]
    assert retries[0]["reason"] == "RuntimeError: not yet"


async def test_job_that_fails_every_attempt_is_abandoned(setup: WorkerSetup) -> None:
    await setup.send(word="a", failing=99)
    worker = setup.start("worker")
    await wait_for_message(worker, "job failed")
    (line,) = [line for line in worker.lines if line["message"] == "job failed"]
    assert line["level"] == "error"
    assert (line["request_id"], line["arguments"]["word"]) == ("request-7", "a")
    assert "RuntimeError: not yet" in line["exception"]
    await setup.send(word="b")
    await setup.wait_for(["b"], doing=worker)
    assert worker.messages().count("counting") == 4


async def test_running_job_is_finished_on_sigterm(setup: WorkerSetup) -> None:
    await setup.send(word="a", slow=1, seconds=2)
    worker = setup.start("worker", GRACEFUL_TIMEOUT_SECONDS="20")
    await wait_for_message(worker, "counting")
    worker.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    await setup.send(word="b")
    assert await asyncio.to_thread(worker.wait) == 0
    assert await setup.words() == ["a"], "the stopping worker must not start a new job"
    assert worker.stderr == ""
    other = setup.start("worker")
    await setup.wait_for(["a", "b"], doing=other)
    assert len(done(other)) == 1


async def test_job_over_the_graceful_timeout_is_done_by_another_worker(setup: WorkerSetup) -> None:
    await setup.send(word="a", slow=1, seconds=60)
    worker = setup.start("worker", GRACEFUL_TIMEOUT_SECONDS="1")
    await wait_for_message(worker, "counting")
    worker.process.send_signal(signal.SIGTERM)
    stopped_at = time.monotonic()
    assert await asyncio.to_thread(worker.wait) == 0
    assert time.monotonic() - stopped_at < 10
    assert await setup.words() == []
    assert not [line for line in worker.lines if line["level"] == "error"]
    other = setup.start("worker")
    await setup.wait_for(["a"], doing=other)


async def test_jobs_of_killed_workers_are_done_exactly_once(setup: WorkerSetup) -> None:
    """Send SIGKILL to every process of a worker, twice, while forty jobs are queued."""
    words = [f"{number:02}" for number in range(40)]
    for word in words:
        await setup.send(key=word, word=word, slow=1000, seconds=0.4)
    for _ in range(2):
        victim = setup.start("worker", WORKER_CONCURRENCY="4")
        # All four are busy for 0.4 s.
        # Celery loses a message that a killed worker is receiving.  # option: celery
        # https://github.com/celery/celery/issues/7950  # option: celery
        await wait_for_message(victim, "counting", times=8)
        os.killpg(victim.process.pid, signal.SIGKILL)
        await asyncio.to_thread(victim.wait)
    before = len(await setup.words())
    assert before < 40
    survivors = [setup.start("worker", WORKER_CONCURRENCY="4") for _ in range(2)]
    await setup.wait_for(words, doing=survivors[0])
    print(f"{before} of 40 done by the killed workers, the rest by the survivors")


async def test_messages_with_the_same_key_are_done_once(setup: WorkerSetup) -> None:
    workers = [setup.start("worker") for _ in range(2)]
    for word in ("a", "b"):
        for _ in range(5):
            await setup.send(key=word, word=word, slow=2, seconds=1)
    duplicate = "job was done before"
    await asyncio.to_thread(
        wait_until,
        lambda: sum(worker.messages().count(duplicate) for worker in workers) >= 8,
        doing=workers[0],
    )
    assert await setup.words() == ["a", "b"]


async def test_job_that_fails_while_redis_is_frozen_is_retried(setup: WorkerSetup) -> None:
    await setup.send(word="a", slow=1, seconds=1, failing=1)
    worker = setup.start("worker")
    await wait_for_message(worker, "counting")
    setup.valkey.freeze()
    await asyncio.sleep(8)  # longer than the failure of the job and the timeout of a command
    setup.valkey.thaw()
    await setup.send(word="b")
    await setup.wait_for(["a", "b"], doing=worker)


async def test_due_job_with_several_schedulers_is_done_once(setup: WorkerSetup) -> None:
    schedulers = [setup.start("scheduler") for _ in range(2)]
    worker = setup.start("worker")
    await wait_for_message(worker, "job was done before")
    for scheduler in schedulers:
        scheduler.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(scheduler.wait) == 0
        assert scheduler.stderr == ""
        (started,) = (line for line in scheduler.lines if line["message"] == "scheduler started")
        assert started["jobs"]["counting.tick"] == "* * * * *"
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    keys = {line["job_key"] for line in done(worker) if line["job"] == "counting.tick"}
    assert await setup.words() == ["tick"] * len(keys)
    assert keys


def check(setup: WorkerSetup, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*APP, command, "--check"],
        env=setup.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["worker", "scheduler"])
async def test_health_check_without_a_recent_heartbeat_fails(
    setup: WorkerSetup, command: str
) -> None:
    missing = await asyncio.to_thread(check, setup, command)
    assert (missing.returncode, missing.stderr) == (1, f"{command}: no heartbeat yet\n")
    process = setup.start(command)
    file = setup.folder / f"{SERVICE_NAME}-{command}.alive"
    await asyncio.to_thread(wait_until, file.exists, doing=process)
    assert (await asyncio.to_thread(check, setup, command)).returncode == 0
    os.killpg(process.process.pid, signal.SIGSTOP)
    os.utime(file, (time.time() - 31, time.time() - 31))
    dead = await asyncio.to_thread(check, setup, command)
    assert dead.returncode == 1
    assert re.fullmatch(rf"{command}: no heartbeat for \d+ s\n", dead.stderr)
    os.killpg(process.process.pid, signal.SIGCONT)
    await asyncio.to_thread(
        wait_until, lambda: time.time() - file.stat().st_mtime < 10, doing=process
    )
    assert (await asyncio.to_thread(check, setup, command)).returncode == 0
    process.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait) == 0
    assert process.stderr == ""


async def test_worker_without_redis_url_exits_with_2(database_url: str) -> None:
    with Service([*APP, "worker"], environment(database_url)) as worker:
        assert await asyncio.to_thread(worker.wait) == 2
        assert worker.stderr == (
            "settings: REDIS_URL is missing: set it to the Redis that holds the queue\n"
        )
