"""Respond with 422 to values that fit the schema of a request, but not the column of a table.

PostgreSQL stores no NUL and no lone surrogate, and its numbers and times have limits. Pydantic has
no access to the columns. So the error of the database is translated, and the value is looked up in
the request. This costs nothing for requests that succeed.
"""

import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import structlog
from fastapi import Request
from sqlalchemy.exc import DBAPIError

from app.errors import InvalidInput

Test = Callable[[Any], bool]

# SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
INVALID_TEXT = {"22021", "22P05"}  # NUL in a text, or in a text of JSON
INVALID_JSON = "22P02"  # also of a cast that this service wrote
OUT_OF_RANGE = {"22003", "22008"}  # a number or a time that the server refused
EXAMINED = "examined_database_error"  # a key of the ASGI scope

log = structlog.get_logger()


async def refuse_unstorable_value(request: Request, error: DBAPIError) -> InvalidInput | None:
    """Return the problem for a value that PostgreSQL cannot store, or None for other errors.

    The problem names the fields with such values. It names a number or a time only if no other
    value of the request could be the cause.
    """
    if request.scope.get(EXAMINED) is error:
        return None  # Starlette handles it again, outside of the route, where the body is gone
    request.scope[EXAMINED] = error
    driver_error = error.driver_exception
    state = getattr(driver_error, "sqlstate", "")
    cause = driver_error.__cause__ if driver_error else None  # asyncpg could not encode a value
    inputs = [item async for item in _inputs(request)]
    if state in INVALID_TEXT or isinstance(cause, UnicodeEncodeError):
        found = _find(inputs, _is_unencodable)
        return _problem(found, "Value must contain no NUL and no lone surrogate") if found else None
    if state == INVALID_JSON:
        found = _find(inputs, lambda value: _is_unencodable(value) or _is_not_finite(value))
        return _problem(found, "Value must be finite, without lone surrogates") if found else None
    if isinstance(cause, OverflowError):
        bits = re.search(r"int(\d+)", str(cause))
        found = _find(inputs, _is_beyond(int(bits[1])) if bits else _is_at_the_end_of_time)
        if not found:
            return None  # this service computed the value
        if len(found) == 1:
            return _problem(found, "Value is out of range")
    elif state not in OUT_OF_RANGE:
        return None
    log.warning("a value is out of the range of its column", sqlstate=state)
    return InvalidInput("A value is out of the range of its column.")


def _find(inputs: list[tuple[str, Any]], test: Test) -> list[str]:
    return [location for location, value in inputs if test(value)]


def _problem(locations: list[str], message: str) -> InvalidInput:
    errors = [{"location": place, "message": message, "type": "unstorable"} for place in locations]
    return InvalidInput("The request does not fit its schema; see errors.", errors=errors)


def _is_unencodable(value: Any) -> bool:
    return isinstance(value, str) and re.search("[\x00\ud800-\udfff]", value) is not None


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _is_beyond(bits: int) -> Test:
    limit = 1 << (bits - 1)

    def is_beyond(value: Any) -> bool:
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,4000}", value, re.ASCII):
            value = int(value)  # of a path or a query, or a number that JSON has as text
        return isinstance(value, int) and not -limit <= value < limit

    return is_beyond


def _is_at_the_end_of_time(value: Any) -> bool:
    """Say if a text is a time in the first or last day that Python has. In UTC it has neither."""
    with suppress(ValueError, TypeError):
        time = datetime.fromisoformat(value)
        return (time.year, time.month, time.day) in {(1, 1, 1), (9999, 12, 31)}
    return False


async def _inputs(request: Request) -> AsyncIterator[tuple[str, Any]]:
    """Yield the location and the value of each input: path, query and body."""
    for name, value in request.path_params.items():
        yield f"path.{name}", value
    for name, value in request.query_params.multi_items():
        yield f"query.{name}", value
    if getattr(request.scope.get("route"), "body_field", None) is None:
        return  # FastAPI has not read the body, and reading it here might wait for the client
    kind = request.headers.get("Content-Type", "").partition(";")[0]
    with suppress(ValueError):  # not JSON
        if kind == "application/x-www-form-urlencoded":
            for name, value in (await request.form()).multi_items():
                yield f"body.{name}", value
        else:
            for item in _walk("body", await request.json()):
                yield item


def _walk(location: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{location}.*", name
            yield from _walk(f"{location}.{name}", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _walk(f"{location}.{number}", item)
    else:
        yield location, value
