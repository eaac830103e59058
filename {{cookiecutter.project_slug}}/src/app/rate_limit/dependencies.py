"""Rate limits of single routes."""

from typing import Any

from fastapi import Depends, Request
from limits import parse

from app.web.routes import route_template


def Limit(  # noqa: N802 - used like Depends()
    limit: str, *, except_form: tuple[str, str] | None = None
) -> Any:
    """Limit a route: use it in the route's `dependencies`. The default limit applies, too.

    Args:
        limit: as in "5/minute", counted for each client.
        except_form: a field and its value; forms that have it are not counted.

    Raises:
        ValueError: the limit is malformed. It is raised at import.
    """
    item = parse(limit)

    async def check(request: Request) -> None:
        # Of a repeated field, the route uses the last value, and so does get().
        if except_form and (await request.form()).get(except_form[0]) == except_form[1]:
            return
        name = f"{request.method} {route_template(request.scope)}"
        await request.state["limiter"].check(request.scope, name, item)

    return Depends(check)
