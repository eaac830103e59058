"""Problem documents (RFC 9457): the response to every error."""

import http.client
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from structlog.contextvars import get_contextvars

from app import errors
from app.errors import ServiceError
from app.web.routes import allowed_methods
from app.web.unstorable_values import refuse_unstorable_value

MEDIA_TYPE = "application/problem+json"
_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
# Python before 3.13 has older phrases for two statuses of RFC 9110.
PHRASES = http.client.responses | {413: "Content Too Large", 422: "Unprocessable Content"}
MAX_LISTED_ERRORS = 100  # a body of 1 MB can have a hundred thousand validation errors
STATUS: dict[type[ServiceError], int] = {
    errors.InvalidInput: 422,
    errors.NotAuthenticated: 401,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.VersionMismatch: 412,
    errors.TooManyRequests: 429,
    errors.BadGateway: 502,
    errors.Unavailable: 503,
    errors.GatewayTimeout: 504,
}


class Problem(ServiceError):
    """An error of HTTP itself, such as a missing header. It has its own status.

    Args:
        detail: the reason, safe to show to the client.
        headers: headers of the response.
        extensions: further members of the problem document.
    """

    status = 500
    title = ServiceError.title

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(detail, **extensions)
        self.headers = headers or {}


class ProblemDocument(BaseModel):
    """The body of every response that is not a success."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str = Field("about:blank", description="Names the kind of problem; stable.")
    title: str
    status: int
    detail: str | None = None
    request_id: str | None = Field(None, description="Quote this when asking for help.")
    trace_id: str | None = Field(None, description="Id of the trace.")  # option: tracing


def status_of(kind: type[ServiceError]) -> int:
    """Return the HTTP status of a kind of error. A kind without a status is a server error."""
    if issubclass(kind, Problem):
        return kind.status
    return next((STATUS[base] for base in kind.__mro__ if base in STATUS), 500)


def _headers(error: ServiceError) -> Mapping[str, str]:
    if isinstance(error, Problem):
        return error.headers
    if isinstance(error, errors.NotAuthenticated):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, errors.TooManyRequests | errors.Unavailable):
        return {"Retry-After": str(error.retry_after_seconds)}
    return {}


def render(error: ServiceError) -> Response:
    """Return the problem document of an error."""
    context = get_contextvars()
    members = error.extensions | {
        "type": error.type,
        "title": error.title,
        "status": error.status if isinstance(error, Problem) else status_of(type(error)),
        "detail": error.detail,
        "request_id": context.get("request_id"),
        "trace_id": context.get("trace_id"),  # option: tracing
    }
    document = ProblemDocument.model_validate(members)
    content = document.model_dump_json(exclude_none=True)
    return Response(content, document.status, _headers(error), MEDIA_TYPE)


def responses(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """Document the errors of a route: use it for the argument `responses`."""
    titles: dict[int | str, list[str]] = {}
    for kind in kinds:
        titles.setdefault(status_of(kind), []).append(kind.title)
    return {
        status: {"description": " or ".join(names), "content": _CONTENT}
        for status, names in titles.items()
    }


UNAUTHORIZED = {"description": "Credentials are missing or invalid", "content": _CONTENT}
FORBIDDEN = {"description": "A permission is missing", "content": _CONTENT}
EVERY_ROUTE: dict[int | str, dict[str, Any]] = {
    422: {"description": "The request does not fit its schema", "content": _CONTENT},
    429: {"description": "Too many requests", "content": _CONTENT},  # option: rate_limit
    "default": {"description": "Any other problem", "content": _CONTENT},
}


def install_error_handlers(app: FastAPI) -> None:
    """Respond to every error with a problem document."""

    @app.exception_handler(ServiceError)
    async def on_service_error(_request: Request, error: ServiceError) -> Response:
        return render(error)

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if "Allow" in headers:  # with the methods of one route
            headers["Allow"] = allowed_methods(request.scope) or headers["Allow"]
        problem = Problem(headers=headers)
        problem.status = error.status_code
        problem.title = PHRASES.get(error.status_code, "Error")
        return render(problem)

    @app.exception_handler(DBAPIError)
    async def on_database_error(request: Request, error: DBAPIError) -> Response:
        if (problem := await refuse_unstorable_value(request, error)) is None:
            raise error
        return render(problem)

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(_request: Request, error: RequestValidationError) -> Response:
        details = [_describe(item) for item in error.errors()[:MAX_LISTED_ERRORS]]
        message = "The request does not fit its schema; see errors."
        return render(errors.InvalidInput(message, errors=details))


def _describe(item: dict[str, Any]) -> dict[str, str]:
    """Describe a validation error without repeating what the client sent."""
    location = list(item["loc"])
    message = item["msg"]
    if item["type"] == "extra_forbidden":
        location[-1] = "*"  # the client chose the name of the unknown field
    if item["type"] == "union_tag_invalid":
        message = "Unknown tag"  # Pydantic's message repeats the tag
    return {"location": ".".join(map(str, location)), "message": message, "type": item["type"]}
