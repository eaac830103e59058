"""The composition root: the one module that knows every other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI

from app.cache.read_through import open_cache  # option: redis
from app.db.database import open_database
from app.db.schema_version import check_revision, load_revisions
from app.features.accounts.routes import install_accounts  # option: auth
from app.features.bookmarks import routes as bookmarks
from app.features.passages.routes import column_check, install_passages  # option: pgvector
from app.features.webhooks import routes as hooks  # option: webhooks
from app.jobs.queue import open_queue  # option: worker
from app.logging.setup import configure_logs
from app.metrics.prometheus import install_metrics  # option: metrics
from app.rate_limit.middleware import Limiter, RateLimitMiddleware  # option: rate_limit
from app.sentry.reporting import open_error_tracking  # option: sentry
from app.settings import Settings, load_settings
from app.tracing import open_tracing, trace_requests  # option: tracing
from app.web.health import Check, Health
from app.web.health import router as health_router
from app.web.middleware import RequestMiddleware
from app.web.openapi import describe_service, extend_openapi
from app.web.problems import EVERY_ROUTE, install_error_handlers
from app.web.request_summary import RequestHook, access_log
from app.web.routing import include
from app.web.server import drain_on_sigterm


def create_app(settings: Settings) -> FastAPI:
    """Build the application; nothing is opened before its lifespan begins."""
    health = Health(settings)
    on_request_start: list[RequestHook] = []
    on_request_end: list[RequestHook] = [access_log(settings)]

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        state: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(open_error_tracking(settings, on_request_end))  # option: sentry
            state["tracer"] = await enter(open_tracing(settings))  # option: tracing
            state["database"] = database = await enter(open_database(settings))
            metrics.watch(database.limiter)  # option: metrics
            health.add(Check("database", database.ping))
            health.add(Check("migrations", partial(check_revision, database, load_revisions())))
            health.add(column_check(database, settings))  # option: pgvector
            state["cache"] = await enter(open_cache(settings, health))  # option: redis
            state["limiter"] = Limiter(settings, state["cache"].breaker)  # option: rate_limit
            state["inbox"] = await enter(hooks.open_inbox(settings, database))  # option: webhooks
            state["queue"] = await enter(open_queue(settings))  # option: worker
            stack.enter_context(drain_on_sigterm(health, settings.drain_seconds))
            stack.push_async_callback(health.finish)
            yield state

    app = FastAPI(
        title="Example Service",
        **describe_service(),
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.serves_docs else None,
        redoc_url=None,  # it loads fonts and a logo from third parties; /docs says the same
        redirect_slashes=False,
        responses=EVERY_ROUTE,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # idle, it costs a tenth
    )
    app.state.health = health
    extend_openapi(app)
    install_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(RateLimitMiddleware)  # option: rate_limit
    app.add_middleware(
        RequestMiddleware,
        settings=settings,
        is_draining=lambda: health.is_draining,
        on_request_start=on_request_start,
        on_request_end=on_request_end,
    )
    trace_requests(app, settings)  # option: tracing
    include(app, health_router)
    install_accounts(app, settings)  # option: auth
    include(app, bookmarks.router)
    include(app, hooks.router)  # option: webhooks
    install_passages(app, settings)  # option: pgvector
    metrics = install_metrics(app, settings, on_request_start, on_request_end)  # option: metrics
    return app


def create_served_app() -> FastAPI:
    """What a server process runs: everything comes from its environment."""
    settings = load_settings()
    configure_logs(settings)
    return create_app(settings)
