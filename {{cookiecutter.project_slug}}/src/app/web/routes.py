"""The routes of the application: their templates and methods."""

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

ROUTE_TEMPLATE = "route_template"  # a key of the state of a request


def include_routers(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Include routers. FastAPI has no list of the routes in them, so the application keeps one."""
    for router in routers:
        app.include_router(router)
    app.state.routers = routers


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


def find_route(scope: Scope) -> str | None:
    """Return the path template of the route that a request would reach, or None."""
    partial = None
    for route, match in _matching_routes(scope):
        if match is Match.FULL:
            return route.path
        partial = partial or route.path  # another method
    return partial


def allowed_methods(scope: Scope) -> str:
    """Return the methods of every route with this path, for `Allow`.

    The request middleware answers HEAD where a route answers GET.
    """
    methods: set[str] = set()
    for route, _ in _matching_routes(scope):
        methods |= route.methods or set()
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def _matching_routes(scope: Scope) -> Iterator[tuple[APIRoute, Match]]:
    app: FastAPI = scope["app"]
    routers: Sequence[APIRouter] = getattr(app.state, "routers", ())
    for route in [*app.routes, *(route for router in routers for route in router.routes)]:
        if isinstance(route, APIRoute):
            match, _ = route.matches(scope)
            if match is not Match.NONE:
                yield route, match
