"""The routes of a feature, laid out flat in the application.

FastAPI's own include_router() leaves them in their router, and looks through that twice for
every request: a tenth of the cost of a small one, and more for each router that comes before.
"""

from inspect import signature

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

# What makes a route, a route remembers under the same name.
SAME = signature(APIRouter.add_api_route).parameters.keys() - {"self", "route_class_override"}


def include(app: FastAPI, router: APIRouter) -> None:
    """Add a router's routes as include_router() does; one with other kinds is left to it."""
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    if routes != router.routes:
        app.include_router(router)
        return
    for route in routes:
        app.router.add_api_route(
            route_class_override=type(route), **{name: getattr(route, name) for name in SAME}
        )
