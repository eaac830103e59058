"""Return the path template and the methods of the route that a request matches."""

from collections.abc import Iterator

from fastapi import FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
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


def _matching_routes(scope: Scope) -> Iterator[tuple[RouteContext, Match]]:
    app: FastAPI = scope["app"]
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute):
            match, _ = route.matches(scope)
            if match is not Match.NONE:
                yield route, match
