"""The ASGI middleware around every request.

One class handles request id, hooks, hosts, body limits and security headers, because each further
middleware costs as much as all of that work. CORS and gzip run only when the request needs them.
"""

import os
import re
import time

import structlog
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from app.db.development import log_undefined
from app.web.checks import Health
from app.web.cors import allow_origins
from app.web.hosts import HostCheck
from app.web.problems import Problem, render
from app.web.request_body import RequestBody
from app.web.request_summary import RequestHook, RequestHooks, RequestSummary
from app.web.routes import ROUTE_TEMPLATE, route_template
from app.web.settings import WebSettings

log = structlog.get_logger()

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:@/+=-]{1,128}")
API_POLICY = b"default-src 'none'; frame-ancestors 'none'"
# FastAPI's documentation page loads Swagger UI from a public CDN.
DOCS_POLICY = (
    b"default-src 'self'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    b"style-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    b"img-src 'self' data: https://fastapi.tiangolo.com; frame-ancestors 'none'"
)
DOCS = {"/docs", "/docs/oauth2-redirect"}
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
API_HEADERS = (*SECURITY_HEADERS, (b"content-security-policy", API_POLICY))
HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")


class ContentTooLarge(Problem):
    status = 413
    title = "Content Too Large"


class RequestMiddleware:
    """Handle request id, hooks, hosts, body limits and security headers."""

    def __init__(
        self, app: ASGIApp, *, settings: WebSettings, health: Health, hooks: RequestHooks
    ) -> None:
        """Wrap an application.

        Args:
            app: the application.
            settings: the hosts, the origins and the body limits.
            health: while it is draining, every response closes its connection.
            hooks: called for every request.
        """
        self._app = app
        self._settings = settings
        self._health = health
        self._hooks = hooks
        docs_policy = DOCS_POLICY
        # The page reads the discovery document, and exchanges a code for a token.  # option: oidc
        origins = ["; connect-src 'self'", *settings.docs_origins()]  # option: oidc
        docs_policy += " ".join(origins).encode()  # option: oidc
        self._docs_headers = (*SECURITY_HEADERS, (b"content-security-policy", docs_policy))
        self._host_check = HostCheck(settings.allowed_hosts)
        zipped = GZipMiddleware(app, minimum_size=1024, compresslevel=4)
        self._app_with_cors_and_gzip = allow_origins(zipped, settings)
        # A shared cache must not send a compressed response to a client that cannot decompress it.
        self._vary = (b"vary", b"Accept-Encoding" + b", Origin" * bool(settings.cors_origins))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # The first header of each name, like `Request.headers`.
        headers = dict(reversed(scope["headers"]))
        request_id = _request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        summary = RequestSummary(scope["method"], scope["path"])
        extra_headers = self._extra_headers(scope, request_id)
        app = self._app_with_cors_and_gzip
        if b"origin" not in headers and b"gzip" not in headers.get(b"accept-encoding", b""):
            app = self._app
            extra_headers.append(self._vary)
        body = None
        if b"content-length" in headers or b"transfer-encoding" in headers:
            body = RequestBody(receive, send, summary, headers, self._settings)
            receive, send = body.receive, body.send

        async def send_and_observe(message: Message) -> None:
            if message["type"] == "http.response.start":
                summary.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra_headers]
                if self._health.is_draining:  # the client reconnects to another replica
                    message["headers"].append((b"connection", b"close"))
            else:
                summary.response_bytes += len(message.get("body", b""))
            await send(message)
            # The application returns later, after its background tasks.
            summary.duration_seconds = time.perf_counter() - started

        is_head = summary.method == "HEAD"  # handled as GET, without the body (RFC 9110, 9.3.2)
        inner = {**scope, "method": "GET"} if is_head else scope
        respond: Send = _without_body(send_and_observe) if is_head else send_and_observe
        log_context = bind_contextvars(request_id=request_id)
        try:
            _call_hooks(self._hooks.on_start, summary)
            app = self._refusal(scope, headers) or app
            await app(inner, receive, respond)
        except Exception as error:
            summary.error = error
            # Starlette calls a handler of Exception outside of all middleware, where request id
            # and CORS headers are missing, and raises the error again.
            _log_unhandled(error, self._settings)
            if summary.status:
                raise  # part of the response is sent: the server closes the connection
            await self._as_app(Problem())(inner, receive, respond)
        finally:
            # Without a response: until the connection was lost.
            summary.duration_seconds = summary.duration_seconds or time.perf_counter() - started
            summary.route = route_template(inner)
            scope.setdefault("state", {})[ROUTE_TEMPLATE] = summary.route  # for outer middleware
            _call_hooks(self._hooks.on_end, summary)
            reset_contextvars(**log_context)
        if body is not None:
            await body.finish()

    def _extra_headers(self, scope: Scope, request_id: str) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"x-request-id", request_id.encode()),
            *(self._docs_headers if scope["path"] in DOCS else API_HEADERS),
        ]
        if scope["scheme"] == "https":
            headers.append(HTTPS_ONLY)
        return headers

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> ASGIApp | None:
        problem = self._host_check.refusal(scope, headers)
        limit = self._settings.max_body_bytes
        length = headers.get(b"content-length")
        # int() raises for more than 4,300 digits.
        if length and length.isdigit() and float(length) > limit:
            problem = ContentTooLarge(f"The request body must have at most {limit} bytes.")
        return self._as_app(problem) if problem else None

    def _as_app(self, problem: Problem) -> ASGIApp:
        """Return an application that responds with a problem, and with CORS headers."""
        return allow_origins(render(problem), self._settings)


def _log_unhandled(error: Exception, settings: WebSettings) -> None:
    if not (settings.is_development and log_undefined(error)):
        log.error("unhandled exception", exc_info=error)


def _request_id(sent: str) -> str:
    return sent if REQUEST_ID.fullmatch(sent) else os.urandom(16).hex()


def _call_hooks(hooks: list[RequestHook], summary: RequestSummary) -> None:
    for hook in hooks:
        hook(summary)


def _without_body(send: Send) -> Send:
    """Send the head of a response with an empty body."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body"})

    return send_head
