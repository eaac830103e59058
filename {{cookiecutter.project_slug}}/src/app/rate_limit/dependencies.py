"""Rate limits of single routes."""

from typing import Any

from fastapi import Depends, Request
from limits import parse

from app.rate_limit.client import client_of
from app.rate_limit.limiter import Limiter
from app.rate_limit.problems import TooManyRequests


def Limit(limit: str) -> Any:  # noqa: N802 - used like Depends()
    """Limit a route: use it in the route's `dependencies`. The default limit applies, too.

    Args:
        limit: as in "5/minute", counted for each client.

    Raises:
        ValueError: the limit is malformed. It is raised at import.
    """
    item = parse(limit)

    async def count(request: Request) -> None:
        limiter: Limiter = request.state["limiter"]
        name = f"{request.method} {request.scope['route'].path}"
        status = await limiter.count(name, item, client_of(request.scope))
        if status is not None:
            request.state["rate_limit_statuses"].append(status)
            if status.is_exceeded:
                raise TooManyRequests(status)

    return Depends(count)
