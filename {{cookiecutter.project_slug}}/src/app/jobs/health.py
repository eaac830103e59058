"""The HTTP application of a worker: `/health/live` and `/health/ready`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from app.db.schema_version import check_schema_version
from app.db.session import Database
from app.errors import Unavailable
from app.jobs.worker_context import Pulse
from app.web.checks import Check, Health, NotReady, Readiness
from app.web.health import Live
from app.web.problems import install_error_handlers

MAX_PULSE_SECONDS = 30.0


class WorkerBlocked(Unavailable):
    """The worker starts no jobs: a job blocks its event loop."""


def create_health_app(database: Database, pulse: Pulse) -> FastAPI:
    """Build the application.

    Args:
        database: for the checks.
        pulse: of the part of the worker that starts jobs.
    """
    health = Health()
    health.add(Check("database", database.ping))
    health.add(Check("migrations", partial(check_schema_version, database)))

    @asynccontextmanager
    async def close_checks(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await health.close()

    app = FastAPI(openapi_url=None, lifespan=close_checks)
    install_error_handlers(app)

    @app.get("/health/live")
    async def check_liveness() -> Live:
        """Restart the worker if this fails. No dependency is checked."""
        if pulse.age_seconds > MAX_PULSE_SECONDS:
            raise WorkerBlocked("The worker starts no jobs.")
        return Live()

    @app.get("/health/ready")
    async def check_readiness() -> Readiness:
        """Return whether the worker runs jobs."""
        await check_liveness()
        if pulse.is_stopping:
            raise NotReady("This worker is stopping.")
        return await health.readiness()

    return app
