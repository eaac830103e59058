"""Problem documents (RFC 9457): the answer to everything that goes wrong."""

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.errors import Problem, Unprocessable
from app.logging.setup import current_value

MEDIA_TYPE = "application/problem+json"
LISTED_ERRORS = 100  # of a body that does not fit; one of 1 MB can have a hundred thousand


class ProblemDocument(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str = Field("about:blank", description="Names the kind of problem; stable.")
    title: str
    status: int
    detail: str | None = None
    request_id: str | None = Field(None, description="Quote this when asking for help.")
    trace_id: str | None = Field(None, description="Of the trace it is in.")  # option: tracing


def render(problem: Problem) -> Response:
    body = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": current_value("request_id"),
        "trace_id": current_value("trace_id"),  # option: tracing
        **problem.extensions,
    }
    content = orjson.dumps({key: value for key, value in body.items() if value is not None})
    return Response(content, problem.status, problem.headers, MEDIA_TYPE)


def responses(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """For a route's or router's `responses`: the problems it can answer with, documented."""
    titles: dict[int | str, list[str]] = {}
    for problem in problems:
        titles.setdefault(problem.status, []).append(problem.title)
    return {
        status: {"description": " or ".join(names), "content": _CONTENT}
        for status, names in titles.items()
    }


_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
EVERY_ROUTE: dict[int | str, dict[str, Any]] = {
    422: {"description": "The request does not fit its schema", "content": _CONTENT},
    429: {"description": "Too many requests", "content": _CONTENT},  # option: rate_limit
    "default": {"description": "Any other problem", "content": _CONTENT},
}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error with a problem document."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return render(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = _allowed_methods(request, headers["Allow"])
    problem = Problem(headers=headers)
    problem.status = error.status_code
    problem.title = HTTPStatus(error.status_code).phrase
    return render(problem)


def _allowed_methods(request: Request, of_one_route: str) -> str:
    """Name the methods of every route with this path; the middleware answers HEAD where GET is."""
    methods = set(of_one_route.split(", "))
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods.update(getattr(route, "methods", None) or ())
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def _location(item: dict[str, Any]) -> tuple[str | int, ...]:
    """Where it is wrong; the name of a field that should not be there is the client's own word."""
    location: tuple[str | int, ...] = item["loc"]
    return (*location[:-1], "*") if item["type"] == "extra_forbidden" else location


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return render(
        Unprocessable(
            "The request does not fit its schema; see errors.",
            errors=[
                {
                    "location": ".".join(map(str, _location(item))),
                    # the one message of Pydantic's that repeats what was sent
                    "message": "Unknown tag"
                    if item["type"] == "union_tag_invalid"
                    else item["msg"],
                    "type": item["type"],
                }
                for item in error.errors()[:LISTED_ERRORS]
            ],
        )
    )
