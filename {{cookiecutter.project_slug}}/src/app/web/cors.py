"""CORS: allow browsers of other origins (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from app.web.problems import Problem, render
from app.web.settings import WebSettings

EXPOSED = [
    "ETag",
    "Location",
    "RateLimit",  # option: rate_limit
    "RateLimit-Policy",  # option: rate_limit
    "Retry-After",
    "X-Request-Id",
]


class OriginRefused(Problem):
    status = 400


class ProblemCORSMiddleware(CORSMiddleware):
    """Answer refused preflight requests with a problem document."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return response
        return render(OriginRefused("That origin, method or header is not allowed here."))


def allow_origins(app: ASGIApp, settings: WebSettings) -> ASGIApp:
    """Wrap an application in CORS middleware, if the settings allow an origin."""
    if not settings.cors_origins:
        return app
    return ProblemCORSMiddleware(
        app,
        allow_origins=settings.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=EXPOSED,
    )
