"""Path templates and methods of the routes that requests match."""

from collections.abc import Iterator
from functools import lru_cache

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
    if route is None:
        stored: str | None = scope.get("state", {}).get(ROUTE_TEMPLATE)
        return stored
    inclusions = _inclusions(scope["app"]).get(id(route), [])
    if len(inclusions) > 1:  # a router that is included with several prefixes
        inclusions = [found for found in inclusions if found.matches(scope)[0] is Match.FULL]
    return inclusions[0].path if inclusions else route.path


@lru_cache(maxsize=8)
def _inclusions(app: FastAPI) -> dict[int, list[RouteContext]]:
    """Return the inclusions of each route by its id. `scope["route"]` lacks their prefix."""
    found: dict[int, list[RouteContext]] = {}
    for inclusion in iter_route_contexts(app.routes):
        found.setdefault(id(inclusion.original_route), []).append(inclusion)
    return found


def allowed_methods(scope: Scope) -> str:
    """Return the methods of every route with this path, for `Allow`.

    The request middleware answers HEAD where a route answers GET.
    """
    methods: set[str] = set()
    for route, _ in matching_routes(scope):
        methods |= route.methods or set()
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def matching_routes(scope: Scope) -> Iterator[tuple[RouteContext, Match]]:
    """Yield the routes that match the path, also those of other methods."""
    app: FastAPI = scope["app"]
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute):
            match, _ = route.matches(scope)
            if match is not Match.NONE:
                yield route, match
