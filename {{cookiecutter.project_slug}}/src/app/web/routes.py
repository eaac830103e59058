"""The path template of a request's route, for logs, metrics and traces."""

from collections.abc import Sequence

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

ROUTE_TEMPLATE = "route_template"  # a key of the state of a request


def route_template(scope: Scope) -> str | None:
    """Return the path template of the matched route, `/orders/{order_id}`, or None.

    A middleware that rejects a request, or passes on a copy of the scope, stores the template in
    the state of the request.
    """
    route: APIRoute | None = scope.get("route")
    if route is not None:
        return route.path
    stored: str | None = scope.get("state", {}).get(ROUTE_TEMPLATE)
    return stored


def find_route(scope: Scope, routers: Sequence[APIRouter]) -> str | None:
    """Return the path template of the route that a request would reach, or None.

    Args:
        scope: the request.
        routers: the routers that the application includes, beside its own routes.
    """
    routes = [*scope["app"].routes, *(route for router in routers for route in router.routes)]
    partial = None
    for route in routes:
        if isinstance(route, APIRoute):
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return route.path
            if match is Match.PARTIAL:  # another method
                partial = partial or route.path
    return partial
