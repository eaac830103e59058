"""The composition root of processes that run jobs."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from app.db.session import open_database
from app.interpreter import exclude_start_from_garbage_collection
from app.jobs.metrics import JobMetrics  # option: metrics
from app.jobs.registry import find_jobs
from app.jobs.worker_context import WorkerConfig, WorkerContext
from app.mail.jobs import mail_jobs  # option: accounts
from app.mail.worker_development import catch_mails_of_worker  # option: accounts
from app.sentry.reporting import open_error_tracking  # option: sentry
from app.settings import Settings
from app.tracing.setup import open_tracing  # option: tracing
from app.web.request_summary import RequestHooks  # option: sentry

DEVELOPMENT_PORT = 8001  # `app dev` uses 8000


@asynccontextmanager
async def open_worker_context(
    settings: Settings, worker_id: uuid.UUID, concurrency: int
) -> AsyncIterator[WorkerContext]:
    """Open the resources of a process that runs jobs.

    Args:
        settings: of the service.
        worker_id: in the table of workers.
        concurrency: the number of concurrent jobs in the process. Each has a connection, and one
            more is for their progress.
    """
    own = settings.model_copy(update={"database_pool_size": concurrency + 1})
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(open_error_tracking(settings, RequestHooks()))  # option: sentry
        database = await enter(open_database(own))
        tracer = await enter(open_tracing(settings, {"database": database}))  # option: tracing
        jobs = find_jobs()
        mail = await enter(catch_mails_of_worker(settings, settings.port))  # option: accounts
        jobs |= mail_jobs(mail)  # option: accounts
        exclude_start_from_garbage_collection()
        yield WorkerContext(
            database,
            jobs,
            worker_id,
            count=JobMetrics(settings, jobs).count,  # option: metrics
            tracer=tracer,  # option: tracing
        )


def worker_config(settings: Settings) -> WorkerConfig:
    """Return the configuration of a worker."""
    worker_id = uuid.uuid4()
    return WorkerConfig(
        id=worker_id,
        jobs=find_jobs(),
        concurrency=settings.worker_concurrency,
        port=_port(settings),
        database=settings,
        web=settings,
        metrics=settings,  # option: metrics
        redis_url=settings.redis_url,  # option: celery
        open_context=lambda concurrency: open_worker_context(settings, worker_id, concurrency),
    )


def _port(settings: Settings) -> int:
    if settings.worker_port is not None:
        return settings.worker_port
    if settings.is_development and "port" not in settings.model_fields_set:
        return DEVELOPMENT_PORT
    return settings.port
