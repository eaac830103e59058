"""Workers as processes, on a Redis of their own: retried, stopped, killed, cut off."""

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

from app.db.database import open_database
from app.jobs.definition import Message
from app.jobs.queue import BACKENDS, QueueBackend
from app.settings import SERVICE_NAME
from conftest import settings_for
from own_valkey import Valkey, own_valkey
from processes import APP, Service, environment, wait_until

JOBS = '''
"""Jobs of a test. A sequence counts the attempts, because it is not rolled back with them."""

import asyncio

import structlog
from sqlalchemy import text

from app.db.database import Transaction
from app.jobs.definition import job

_TRY = text("SELECT nextval('tries') AS number")
_INSERT = text("INSERT INTO counted (word) VALUES (:word) RETURNING word")


@job(attempts=3)
async def count(
    transaction: Transaction, *, word: str, seconds: float = 0, slow: int = 0, failing: int = 0
) -> str:
    """Insert a word; the first `slow` attempts take some seconds, the first `failing` fail."""
    (row,) = await transaction.fetch(_TRY)
    await transaction.fetch(_INSERT, {"word": word})
    structlog.get_logger().info("counting", word=word)
    if row.number <= slow:
        await asyncio.sleep(seconds)
    if row.number <= failing:
        raise RuntimeError("not yet")
    return word


@job(cron="* * * * *")
async def tick(transaction: Transaction) -> None:
    await transaction.fetch(_INSERT, {"word": "tick"})
'''
CREATE = ("CREATE TABLE counted (word text)", "CREATE SEQUENCE tries")
DROP = ("DROP TABLE counted", "DROP SEQUENCE tries")
# What would take too long in a test; a lease must outlive a moment of a busy machine.
SHORTER = {
    "LEASE_SECONDS = 20.0": "LEASE_SECONDS = 4.0",
    "BEAT_SECONDS = 5.0": "BEAT_SECONDS = 1.0",
    "longest + LONGEST_PAUSE_SECONDS + LEASE_MARGIN_SECONDS": "10.0",
    "crontab.from_string(job.cron)": "1",  # second
}


class Workshop:
    """A queue of its own, a table to write to, and processes by one library."""

    def __init__(self, library: str, database_url: str, valkey: Valkey, source: Path) -> None:
        self._database_url = database_url
        self.folder = source
        self._stack = ExitStack()
        self.settings = settings_for(database_url, redis_url=valkey.url)
        self.valkey = valkey
        self.library = cast(QueueBackend, import_module(library))

    def environment(self, **variables: str) -> dict[str, str]:
        """Of a process from a copy of the source with jobs of the test."""
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
        async with self.library.open_sender(self.settings) as send:
            await send(message)

    async def words(self) -> list[str]:
        """What was counted and committed."""
        async with open_database(self.settings) as database:
            rows = await database.fetch(text("SELECT word FROM counted ORDER BY word"))
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
async def workshop(
    request: pytest.FixtureRequest,
    database_url: str,
    source: Path,
    clean_tables: None,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Workshop]:
    assert clean_tables is None
    counting = source / "app" / "counting"
    counting.mkdir()
    (counting / "__init__.py").touch()
    (counting / "jobs.py").write_text(JOBS)
    for path in (source / "app" / "tasks").glob("*.py"):
        content = path.read_text()
        for long, short in SHORTER.items():
            content = content.replace(long, short)
        if path.name == "queue.py":
            for library in set(BACKENDS) - {request.param}:
                content = content.replace(f'    "{library}",', "")
        path.write_text(content)
    await execute(database_url, CREATE)
    with own_valkey() as valkey:
        # That a busy machine sends late is not what is tested here.
        monkeypatch.setattr(f"{request.param}.SEND_SECONDS", 10)
        workshop = Workshop(request.param, database_url, valkey, source)
        try:
            yield workshop
        finally:
            workshop.close()
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


async def test_a_job_is_done_with_the_request_id_and_the_result_in_the_log(
    workshop: Workshop,
) -> None:
    await workshop.send(key="k", word="a")
    worker = workshop.start("worker")
    await workshop.wait_for(["a"], doing=worker)
    await wait_for_message(worker, "job done")
    (line,) = done(worker)
    assert (line["job"], line["job_key"]) == ("counting.count", "k")
    assert (line["request_id"], line["result"]) == ("request-7", "a")
    (line,) = [line for line in worker.lines if line["message"] == "counting"]
    assert line["request_id"] == "request-7"
    assert worker.stderr == ""


async def test_a_job_that_fails_is_tried_again_and_leaves_nothing_of_the_attempts(
    workshop: Workshop,
) -> None:
    await workshop.send(word="a", failing=2)
    worker = workshop.start("worker")
    await wait_for_message(worker, "job done")
    assert await workshop.words() == ["a"]
    retries = [line for line in worker.lines if line["message"] == "job will be tried again"]
    assert [line["attempt"] for line in retries] == [1, 2]
    assert retries[0]["reason"] == "RuntimeError: not yet"


async def test_a_job_that_keeps_failing_is_given_up_and_does_not_come_back(
    workshop: Workshop,
) -> None:
    await workshop.send(word="a", failing=99)
    worker = workshop.start("worker")
    await wait_for_message(worker, "job failed")
    (line,) = [line for line in worker.lines if line["message"] == "job failed"]
    assert line["level"] == "error"
    assert (line["request_id"], line["arguments"]["word"]) == ("request-7", "a")
    assert "RuntimeError: not yet" in line["exception"]
    await workshop.send(word="b")
    await workshop.wait_for(["b"], doing=worker)
    assert worker.messages().count("counting") == 4


async def test_on_sigterm_a_running_job_is_finished(workshop: Workshop) -> None:
    await workshop.send(word="a", slow=1, seconds=2)
    worker = workshop.start("worker", GRACEFUL_TIMEOUT_SECONDS="20")
    await wait_for_message(worker, "counting")
    worker.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    await workshop.send(word="b")
    assert await asyncio.to_thread(worker.wait) == 0
    assert await workshop.words() == ["a"], "nothing new was begun"
    assert worker.stderr == ""
    other = workshop.start("worker")
    await workshop.wait_for(["a", "b"], doing=other)
    assert len(done(other)) == 1


async def test_a_job_that_does_not_finish_in_time_is_done_by_another_worker(
    workshop: Workshop,
) -> None:
    await workshop.send(word="a", slow=1, seconds=60)
    worker = workshop.start("worker", GRACEFUL_TIMEOUT_SECONDS="1")
    await wait_for_message(worker, "counting")
    worker.process.send_signal(signal.SIGTERM)
    stopped_at = time.monotonic()
    assert await asyncio.to_thread(worker.wait) == 0
    assert time.monotonic() - stopped_at < 10
    assert await workshop.words() == []
    assert not [line for line in worker.lines if line["level"] == "error"]
    other = workshop.start("worker")
    await workshop.wait_for(["a"], doing=other)


async def test_of_workers_killed_with_jobs_running_nothing_is_lost_and_nothing_done_twice(
    workshop: Workshop,
) -> None:
    """The drill: SIGKILL to every process, twice, with forty jobs on their way."""
    words = [f"{number:02}" for number in range(40)]
    for word in words:
        await workshop.send(key=word, word=word, slow=1000, seconds=0.4)
    for _ in range(2):
        victim = workshop.start("worker", WORKER_CONCURRENCY="4")
        await wait_for_message(victim, "counting", times=6)
        os.killpg(victim.process.pid, signal.SIGKILL)
        await asyncio.to_thread(victim.wait)
    before = len(await workshop.words())
    assert before < 40
    survivors = [workshop.start("worker", WORKER_CONCURRENCY="4") for _ in range(2)]
    await workshop.wait_for(words, doing=survivors[0])
    print(f"{before} of 40 done by those that were killed, the rest by the others")


async def test_of_two_messages_with_one_key_one_is_done(workshop: Workshop) -> None:
    workers = [workshop.start("worker") for _ in range(2)]
    for word in ("a", "b"):
        for _ in range(5):
            await workshop.send(key=word, word=word, slow=2, seconds=1)
    already = "job is done already"
    await asyncio.to_thread(
        wait_until,
        lambda: sum(worker.messages().count(already) for worker in workers) >= 8,
        doing=workers[0],
    )
    assert await workshop.words() == ["a", "b"]


async def test_a_frozen_redis_is_waited_for_and_loses_no_job_that_fails_meanwhile(
    workshop: Workshop,
) -> None:
    await workshop.send(word="a", slow=1, seconds=1, failing=1)
    worker = workshop.start("worker")
    await wait_for_message(worker, "counting")
    workshop.valkey.freeze()
    await asyncio.sleep(8)  # longer than it takes to fail, and then a command
    workshop.valkey.thaw()
    await workshop.send(word="b")
    await workshop.wait_for(["a", "b"], doing=worker)


async def test_a_job_that_is_due_is_done_once_however_many_schedulers_there_are(
    workshop: Workshop,
) -> None:
    schedulers = [workshop.start("scheduler") for _ in range(2)]
    worker = workshop.start("worker")
    await wait_for_message(worker, "job is done already")
    for scheduler in schedulers:
        scheduler.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(scheduler.wait) == 0
        assert scheduler.stderr == ""
        (started,) = (line for line in scheduler.lines if line["message"] == "scheduler started")
        assert started["jobs"]["counting.tick"] == "* * * * *"
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    moments = {line["job_key"] for line in done(worker) if line["job"] == "counting.tick"}
    assert await workshop.words() == ["tick"] * len(moments) != []


def check(workshop: Workshop, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*APP, command, "--check"],
        env=workshop.environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["worker", "scheduler"])
async def test_the_health_check_tells_the_living_from_the_dead(
    workshop: Workshop, command: str
) -> None:
    missing = await asyncio.to_thread(check, workshop, command)
    assert (missing.returncode, missing.stderr) == (1, f"{command}: no sign of life yet\n")
    process = workshop.start(command)
    file = workshop.folder / f"{SERVICE_NAME}-{command}.alive"
    await asyncio.to_thread(wait_until, file.exists, doing=process)
    assert (await asyncio.to_thread(check, workshop, command)).returncode == 0
    os.killpg(process.process.pid, signal.SIGSTOP)
    os.utime(file, (time.time() - 31, time.time() - 31))
    dead = await asyncio.to_thread(check, workshop, command)
    assert dead.returncode == 1
    assert re.fullmatch(rf"{command}: no sign of life for \d+ s\n", dead.stderr)
    os.killpg(process.process.pid, signal.SIGCONT)
    await asyncio.to_thread(
        wait_until, lambda: time.time() - file.stat().st_mtime < 10, doing=process
    )
    assert (await asyncio.to_thread(check, workshop, command)).returncode == 0
    process.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait) == 0
    assert process.stderr == ""


async def test_without_redis_there_is_nothing_to_work_on(database_url: str) -> None:
    with Service([*APP, "worker"], environment(database_url)) as worker:
        assert await asyncio.to_thread(worker.wait) == 2
        assert worker.stderr == "settings: REDIS_URL is missing, and that is where jobs wait\n"
