"""The thread of a worker beside its jobs. A job that blocks its event loop does not block it.

The thread serves health checks and metrics, records the heartbeat, enqueues scheduled jobs, and
lets workers find jobs whose message is lost.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event, Thread

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Executable, bindparam, delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from app.db.schema_version import MigrationError, check_schema_version
from app.db.session import Database, open_database
from app.errors import Unavailable
from app.jobs.backend import load_statements
from app.jobs.health import create_health_app
from app.jobs.metrics import add_metrics_route  # option: metrics
from app.jobs.models import WorkerRecord
from app.jobs.scheduler import schedule
from app.jobs.states import HAND_BACK_ALL
from app.jobs.worker_context import Pulse, WorkerConfig
from app.web.server import listen, url_of

log = structlog.get_logger()

CONNECTIONS = 2
BEAT_SECONDS = 5.0
DELIVER_SECONDS = 30.0
WAIT_SECONDS = 5.0  # between two looks at the version of the database
_BEAT = insert(WorkerRecord).on_conflict_do_update(
    index_elements=[WorkerRecord.id], set_={"beat_at": func.now()}
)
_END = delete(WorkerRecord).where(WorkerRecord.id == bindparam("worker"))

Task = Callable[[Database, asyncio.Event], Coroutine[None, None, None]]


class BackgroundFailed(Exception):
    """The thread has ended with an error, which is in the log."""


@contextmanager
def run_in_background(config: WorkerConfig, pulse: Pulse, *tasks: Task) -> Iterator[None]:
    """Run the thread while the block runs. At the end, hand back the worker's running jobs.

    Args:
        config: of the worker.
        pulse: of the part that starts jobs.
        tasks: of the queue library. Each runs until its event is set.

    Raises:
        ListenError: the port cannot be bound.
        BackgroundFailed: the thread failed. SIGTERM was sent to this process.
    """
    background = _Background(config, pulse, tasks)
    thread = Thread(target=background.run, name="background")
    thread.start()
    try:
        yield
    finally:
        background.stop()
        thread.join()
    if background.has_failed:
        raise BackgroundFailed


class _Background:
    def __init__(self, config: WorkerConfig, pulse: Pulse, tasks: tuple[Task, ...]) -> None:
        self._config = config
        self._pulse = pulse
        self._tasks = tasks
        self._sockets = listen(config.web.host, config.port)
        self._has_started = Event()
        self.has_failed = False

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception:  # an error of the thread ends the process
            log.exception("worker failed")
            self.has_failed = True
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            self._has_started.set()

    def stop(self) -> None:
        """Let the thread end. The caller joins it."""
        self._has_started.wait()
        with suppress(RuntimeError):  # the thread has failed, and its loop is closed
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = self._config
        settings = config.database.model_copy(update={"database_pool_size": CONNECTIONS})
        worker = {"id": config.id, "host": socket.gethostname(), "concurrency": config.concurrency}
        async with open_database(settings) as database:
            app = create_health_app(database, self._pulse)
            add_metrics_route(app, config.metrics, database, config.jobs)  # option: metrics
            tasks: tuple[Task, ...] = (
                partial(_repeat, BEAT_SECONDS, _BEAT, worker),
                partial(_repeat, DELIVER_SECONDS, load_statements().DELIVER, {}),
                partial(schedule, config.jobs.values()),
                *self._tasks,
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(_serve(app, self._sockets, self._stop))
                group.create_task(_run_tasks(tasks, database, self._stop))
                self._has_started.set()
            await _end(database, config)


async def _run_tasks(tasks: Iterable[Task], database: Database, stop: asyncio.Event) -> None:
    """Wait for the tables of this version, and run the tasks until `stop` is set.

    A worker is deployed together with the service, which may not have migrated the database yet.
    """
    while not stop.is_set():
        try:
            await check_schema_version(database)
            break
        except (DBAPIError, MigrationError, OSError) as error:
            log.warning("worker waits for the database", reason=f"{error}")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WAIT_SECONDS)
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(task(database, stop))


async def _serve(app: FastAPI, sockets: list[socket.socket], stop: asyncio.Event) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            http="app.web.http_protocol:HttpProtocol",
            log_config=None,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    log.info("listening", url=url_of(sockets[0]))
    serving = asyncio.create_task(server.serve(sockets))
    await stop.wait()
    server.should_exit = True
    await serving


async def _repeat(
    seconds: float,
    statement: Executable,
    values: Mapping[str, object],
    database: Database,
    stop: asyncio.Event,
) -> None:
    """Execute a statement every few seconds. During an outage, the next one is the retry."""
    while not stop.is_set():
        with suppress(Unavailable):  # it is logged
            async with database.read_connection() as connection:
                await connection.execute(statement, values)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)


async def _end(database: Database, config: WorkerConfig) -> None:
    """Hand back the running jobs of this worker, and delete its heartbeat."""
    worker = {"worker": config.id}
    with suppress(
        DBAPIError, Unavailable
    ):  # another worker takes the jobs when the heartbeat is old
        async with database.session() as session:
            jobs = len((await session.scalars(HAND_BACK_ALL, worker)).all())
            await session.execute(_END, worker)
        if jobs:
            log.warning("jobs handed back", jobs=jobs)
