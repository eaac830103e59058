"""Send queued jobs to Celery, and again if their messages are lost.

The message of a job is its id. A second message of a job has no effect.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import asyncpg
import structlog
from asyncpg import InterfaceError, InternalClientError, PostgresError
from kombu.exceptions import OperationalError
from sqlalchemy import Text, and_, bindparam, column, exists, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION

from app.db.session import Database
from app.db.settings import DatabaseSettings
from app.errors import Unavailable
from app.jobs.celery.statements import CHANNEL
from app.jobs.definition import Job
from app.jobs.direct_connection import open_direct_connection
from app.jobs.models import JOBS, WORKERS

log = structlog.get_logger()

MAX_SENT = 200  # messages of jobs that no worker has started
RESEND_AFTER = timedelta(seconds=60)  # the message of a job that no worker has started is lost
DEAD_AFTER = timedelta(seconds=30)  # a worker without a heartbeat
LATE_SECONDS = 30.0  # for an attempt that does not end at its time limit
POLL_SECONDS = 1.0  # for jobs whose delay ends
BUSY_SECONDS = 0.05  # while there are due jobs
LOCK = 7358  # key of the advisory lock of the relay that sends
# kombu raises OperationalError, and asyncpg InternalClientError when the connection ends during a
# query.
UNAVAILABLE = (InterfaceError, InternalClientError, OperationalError, OSError, PostgresError)

Send = Callable[[Sequence[uuid.UUID]], None]

_TRY_LOCK = select(func.pg_try_advisory_xact_lock(LOCK))
_IS_SENT = JOBS.c.sent_at > func.now() - RESEND_AFTER
_COUNT_SENT = (
    select(
        JOBS.c.name,
        func.count().filter(JOBS.c.status == "queued").label("queued"),
        func.count().label("unfinished"),
    )
    .where(or_(and_(JOBS.c.status == "queued", _IS_SENT), JOBS.c.status == "running"))
    .group_by(JOBS.c.name)
)
_DUE = (
    select(JOBS.c.id)
    .where(
        JOBS.c.name == func.any(bindparam("names", type_=ARRAY(Text))),
        JOBS.c.status == "queued",
        JOBS.c.run_after <= func.now(),
        or_(JOBS.c.sent_at.is_(None), ~_IS_SENT),
    )
    .order_by(JOBS.c.priority.desc(), JOBS.c.run_after)
    .limit(bindparam("number"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
_MARK_SENT = (
    update(JOBS).where(JOBS.c.id == _DUE.c.id).values(sent_at=func.now()).returning(JOBS.c.id)
)
_HAS_WORKER = exists().where(
    WORKERS.c.id == JOBS.c.worker_id, WORKERS.c.beat_at > func.now() - DEAD_AFTER
)
_LIMITS = (
    func.unnest(
        bindparam("names", type_=ARRAY(Text)), bindparam("seconds", type_=ARRAY(DOUBLE_PRECISION))
    )
    .table_valued(column("name", Text), column("seconds", DOUBLE_PRECISION))
    .render_derived("limits")
)
_RECOVER = (
    update(JOBS)
    .where(
        JOBS.c.status == "running",
        JOBS.c.name == _LIMITS.c.name,
        or_(
            ~_HAS_WORKER,
            JOBS.c.started_at + func.make_interval(0, 0, 0, 0, 0, 0, _LIMITS.c.seconds)
            < func.now(),
        ),
    )
    .values(status="queued", sent_at=null())
)


class Relay:
    """Sends the jobs of the database to Celery. Of several workers, one sends at a time.

    Args:
        settings: of the database.
        jobs: the jobs of this version. Other jobs wait for a worker that has them.
        send: sends the messages of jobs, and raises the library's error.
    """

    def __init__(self, settings: DatabaseSettings, jobs: Mapping[str, Job], send: Send) -> None:
        self._settings = settings
        self._jobs = jobs
        self._send = send
        self._limits = {
            "names": list(jobs),
            "seconds": [job.timeout_seconds + LATE_SECONDS for job in jobs.values()],
        }

    async def run(self, database: Database, stop: asyncio.Event) -> None:
        """Send jobs as soon as they are committed or due, until `stop` is set."""
        while not stop.is_set():
            try:
                async with open_direct_connection(self._settings) as connection:
                    await self._listen(connection, database, stop)
            except Unavailable:
                pass  # it is logged
            except UNAVAILABLE as error:
                log.warning("queue unavailable", reason=f"{type(error).__name__}: {error}")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_SECONDS)

    async def _listen(
        self, connection: asyncpg.Connection, database: Database, stop: asyncio.Event
    ) -> None:
        has_work = asyncio.Event()
        await connection.add_listener(CHANNEL, lambda *_: has_work.set())
        while not (stop.is_set() or connection.is_closed()):
            has_work.clear()
            if await self._send_due(database):
                await asyncio.sleep(BUSY_SECONDS)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(has_work.wait(), POLL_SECONDS)

    async def _send_due(self, database: Database) -> int:
        """Send due jobs within the limits, and return their number."""
        async with database.session() as session:
            if not await session.scalar(_TRY_LOCK):
                return 0
            await session.execute(_RECOVER, self._limits)
            counts = {row.name: row for row in await session.execute(_COUNT_SENT)}
            limited = {job.name: job.concurrency for job in self._jobs.values() if job.concurrency}
            free = MAX_SENT - sum(row.queued for row in counts.values())
            requests = [([name for name in self._jobs if name not in limited], free)]
            for name, limit in limited.items():
                unfinished = counts[name].unfinished if name in counts else 0
                requests.append(([name], min(free, limit - unfinished)))
            due: list[uuid.UUID] = []
            for names, number in requests:
                if number > 0:
                    values = {"names": names, "number": number}
                    due += await session.scalars(_MARK_SENT, values)
            if due:
                # If this fails, the transaction is rolled back, and each is sent again.
                await asyncio.to_thread(self._send, due)
        return len(due)
