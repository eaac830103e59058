"""The health checks of a worker process, while its jobs, its database and itself fail."""

import asyncio
import signal
from collections.abc import Callable

import httpx
from sqlalchemy import func, select

from app.db.session import open_database
from app.jobs.models import JOBS, WORKERS
from conftest import settings_for
from processes import HANG_SECONDS, Service, wait_until
from sql import fetch
from worker_copies import WorkerCopies, workers

__all__ = ["workers"]  # a fixture

RUNNING = select(func.count()).where(JOBS.c.status == "running")


def status(worker: Service, path: str) -> int:
    return httpx.get(f"{worker.url}/health/{path}", timeout=HANG_SECONDS).status_code


async def wait_for(condition: Callable[[], bool], worker: Service) -> None:
    await asyncio.to_thread(wait_until, condition, doing=worker)


async def wait_for_running_job(workers: WorkerCopies, worker: Service) -> None:
    async with open_database(settings_for(workers.postgres.url)) as database:
        async with asyncio.timeout(HANG_SECONDS):
            while not (await fetch(database, RUNNING))[0].count:
                assert worker.process.poll() is None, worker.stdout + worker.stderr
                await asyncio.sleep(0.05)


async def test_worker_is_live_and_ready_and_deletes_its_heartbeat_at_the_end(
    workers: WorkerCopies,
) -> None:
    worker = workers.start()
    await asyncio.to_thread(worker.wait_until_ready)
    assert status(worker, "live") == 200
    async with open_database(settings_for(workers.postgres.url)) as database:
        assert len(await fetch(database, select(WORKERS))) == 1
        worker.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait) == 0
        assert await fetch(database, select(WORKERS)) == []
    assert worker.stderr == ""


async def test_worker_without_database_is_live_and_not_ready_until_it_returns(
    workers: WorkerCopies,
) -> None:
    worker = workers.start()
    await asyncio.to_thread(worker.wait_until_ready)
    workers.postgres.stop()
    await wait_for(lambda: status(worker, "ready") == 503, worker)
    assert status(worker, "live") == 200
    workers.postgres.start()
    await wait_for(lambda: status(worker, "ready") == 200, worker)
    assert worker.stderr == ""


async def test_stopping_worker_is_live_and_not_ready_while_its_job_ends(
    workers: WorkerCopies,
) -> None:
    await workers.enqueue("wait")
    worker = workers.start(GRACEFUL_TIMEOUT_SECONDS="600")
    await asyncio.to_thread(worker.wait_until_ready)
    await wait_for_running_job(workers, worker)
    worker.process.send_signal(signal.SIGTERM)
    await wait_for(lambda: status(worker, "ready") == 503, worker)
    assert status(worker, "live") == 200


async def test_worker_whose_event_loop_is_blocked_is_not_live(workers: WorkerCopies) -> None:
    await workers.enqueue("block")
    worker = workers.start()
    await asyncio.to_thread(worker.wait_until_ready)
    await wait_for_running_job(workers, worker)
    # Celery's jobs run in other processes, which it kills at their time limit.  # option: celery
    if workers.backend == "app.jobs.celery":  # option: celery
        await asyncio.sleep(6)  # longer than the limit  # option: celery
        assert status(worker, "live") == status(worker, "ready") == 200  # option: celery
        return  # option: celery
    await wait_for(lambda: status(worker, "live") == 503, worker)
    assert status(worker, "ready") == 503
