"""Rate limits of single routes."""

from typing import Any

from fastapi import Depends, Request
from limits import parse

from app.web.routes import route_template


def Limit(limit: str) -> Any:  # noqa: N802 - used like Depends()
    """Limit a route: use it in the route's `dependencies`. The default limit applies, too.

    Args:
        limit: as in "5/minute", counted for each client.

    Raises:
        ValueError: the limit is malformed. It is raised at import.
    """
    item = parse(limit)

    async def check(request: Request) -> None:
        name = f"{request.method} {route_template(request.scope)}"
        await request.state["limiter"].check(request.scope, name, item)

    return Depends(check)
