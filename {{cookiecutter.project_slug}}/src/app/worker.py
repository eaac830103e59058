"""The composition root of processes that run jobs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from app.db.session import open_database
from app.jobs.worker_context import WorkerConfig, WorkerContext
from app.sentry.reporting import open_error_tracking  # option: sentry
from app.settings import Settings
from app.tracing.setup import open_tracing  # option: tracing
from app.web.request_summary import RequestHooks  # option: sentry


@asynccontextmanager
async def open_worker_context(settings: Settings, connections: int) -> AsyncIterator[WorkerContext]:
    """Open the resources of a process that runs jobs.

    Args:
        settings: of the service.
        connections: to the database, one for each concurrent job.
    """
    own = settings.model_copy(update={"database_pool_size": connections})
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(open_error_tracking(settings, RequestHooks()))  # option: sentry
        database = await enter(open_database(own))
        tracer = await enter(open_tracing(settings, {"database": database}))  # option: tracing
        yield WorkerContext(
            database,
            tracer,  # option: tracing
        )


def worker_config(settings: Settings, redis_url: str) -> WorkerConfig:
    """Return the configuration of a worker.

    Args:
        settings: of the service.
        redis_url: the URL of the queue.
    """
    return WorkerConfig(
        redis_url=redis_url,
        concurrency=settings.worker_concurrency,
        graceful_timeout_seconds=settings.graceful_timeout_seconds,
        open_context=partial(open_worker_context, settings),
    )
