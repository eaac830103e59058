"""What a process that does jobs has open, for as long as it does them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from app.db.database import Database, open_database
from app.sentry.reporting import open_error_tracking  # option: sentry
from app.settings import Settings
from app.tracing import open_tracing  # option: tracing
from app.tracing.jobs import traced_jobs  # option: tracing


@asynccontextmanager
async def open_worker_context(settings: Settings, *, connections: int) -> AsyncIterator[Database]:
    """Open the database and what observes jobs.

    Args:
        settings: where they are.
        connections: to the database, as many as jobs at once.
    """
    own = settings.model_copy(update={"database_pool_size": connections})
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(open_error_tracking(settings, []))  # option: sentry
        stack.enter_context(traced_jobs(await enter(open_tracing(settings))))  # option: tracing
        yield await enter(open_database(own))
