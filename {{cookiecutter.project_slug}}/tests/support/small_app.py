"""A small application: middleware and error handlers as in main.py, without any feature."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app.db.session import open_database
from app.settings import Settings
from app.web.access_log import create_access_log_hook
from app.web.checks import Health
from app.web.middleware import RequestMiddleware
from app.web.openapi import extend_openapi
from app.web.problems import EVERY_ROUTE, install_error_handlers
from app.web.request_summary import RequestHooks


def create_small_app(
    settings: Settings, *, with_database: bool = False, **state: object
) -> FastAPI:
    """Return an application for the routes of a test.

    Args:
        settings: the settings of the middleware and of the database.
        with_database: whether the lifespan opens the database.
        state: further objects that `from_state` finds.
    """

    @asynccontextmanager
    async def open_state(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        if with_database:
            async with open_database(settings) as database:
                yield state | {"database": database}
        else:
            yield state

    app = FastAPI(lifespan=open_state, responses=EVERY_ROUTE)
    extend_openapi(app)
    install_error_handlers(app)
    hooks = RequestHooks(on_end=[create_access_log_hook(log_probes=False)])
    app.add_middleware(RequestMiddleware, settings=settings, health=Health(), hooks=hooks)
    return app
