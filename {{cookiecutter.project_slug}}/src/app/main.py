"""The composition root: the objects of the lifespan, in order, and every router."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI

from app.auth.oidc.provider import document_provider, open_provider  # option: oidc
from app.cache.read_through import open_cache  # option: redis
from app.db.development import warn_of_unapplied_migrations
from app.db.schema_version import check_schema_version
from app.db.session import open_database
from app.features.accounts import routes as accounts  # option: accounts
from app.features.bookmarks import routes as bookmarks
from app.features.passages import routes as passages  # option: pgvector
from app.features.webhooks import routes as webhooks  # option: webhooks
from app.interpreter import exclude_start_from_garbage_collection
from app.jobs import routes as jobs  # option: worker
from app.logging.setup import configure_logs
from app.metrics.routes import create_metrics, metrics_router  # option: metrics
from app.rate_limit.limiter import Limiter, RateLimitMiddleware  # option: rate_limit
from app.sentry.reporting import open_error_tracking  # option: sentry
from app.settings import Settings, load_settings
from app.tracing.setup import open_tracing, trace_requests  # option: tracing
from app.web.access_log import create_access_log_hook
from app.web.checks import Check, Health
from app.web.health import add_health_routes
from app.web.middleware import RequestMiddleware
from app.web.openapi import describe_service, extend_openapi
from app.web.problems import EVERY_ROUTE, install_error_handlers
from app.web.request_summary import RequestHooks
from app.web.server import drain_on_sigterm


@asynccontextmanager
async def open_state(
    settings: Settings, health: Health, hooks: RequestHooks
) -> AsyncIterator[dict[str, Any]]:
    """Open the objects that requests use, in order, and close them in reverse.

    Args:
        settings: the settings of the service.
        health: receives the health checks of the objects.
        hooks: receives the functions of the objects that observe requests.
    """
    state: dict[str, Any] = {"settings": settings, "health": health, "hooks": hooks}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await enter(open_error_tracking(settings, hooks))  # option: sentry
        state["database"] = database = await enter(open_database(settings))
        health.add(Check("database", database.ping))
        health.add(Check("migrations", partial(check_schema_version, database)))
        jobs.add_worker_info(database, health)  # option: worker
        if settings.is_development:
            await warn_of_unapplied_migrations(database)
        state["metrics"] = create_metrics(settings, database, hooks)  # option: metrics
        state["cache"] = await enter(open_cache(settings, database, health.add))  # option: redis
        state["tracer"] = await enter(open_tracing(settings, state))  # option: tracing
        state["limiter"] = Limiter(settings, state["cache"].breaker)  # option: rate_limit
        state |= await enter(accounts.open_state(settings, database))  # option: accounts
        state["provider_tokens"] = await enter(open_provider(settings))  # option: oidc
        state |= passages.create_state(settings, database, health.add)  # option: pgvector
        state["inbox"] = await enter(webhooks.open_inbox(settings, state))  # option: webhooks
        stack.enter_context(drain_on_sigterm(health, settings.drain_seconds))
        stack.push_async_callback(health.close)
        yield state


def create_app(settings: Settings) -> FastAPI:
    """Build the application. Connections are opened by its lifespan."""
    health = Health()
    hooks = RequestHooks(on_end=[create_access_log_hook(log_probes=settings.log_level == "debug")])

    app = FastAPI(
        title="Example Service",
        **describe_service(),
        lifespan=lambda _app: open_state(settings, health, hooks),
        openapi_url="/openapi.json" if settings.serves_docs else None,
        redoc_url=None,  # it loads fonts and a logo from third parties, and shows the same as /docs
        redirect_slashes=False,
        responses=EVERY_ROUTE,
        # FastAPI's telemetry lowers the throughput by a tenth, also without an exporter.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    extend_openapi(app)
    document_provider(app, settings)  # option: oidc
    install_error_handlers(app)
    # The last middleware that is added is the outermost.
    app.add_middleware(RateLimitMiddleware)  # option: rate_limit
    app.add_middleware(RequestMiddleware, settings=settings, health=health, hooks=hooks)
    trace_requests(app, settings)  # option: tracing
    add_health_routes(app, settings, health)
    app.include_router(metrics_router)  # option: metrics
    app.include_router(accounts.router)  # option: accounts
    app.include_router(bookmarks.router)
    app.include_router(jobs.router)  # option: worker
    app.include_router(webhooks.router)  # option: webhooks
    app.include_router(passages.router)  # option: pgvector
    return app


def create_served_app() -> FastAPI:
    """Build the application of a server process, with settings from its environment."""
    settings = load_settings()
    configure_logs(settings)
    app = create_app(settings)
    exclude_start_from_garbage_collection()
    return app
