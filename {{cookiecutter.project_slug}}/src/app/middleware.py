"""One pure-ASGI layer around every request.

Request id, access log, trusted hosts, body limit and security headers are one class rather
than five, because each further layer costs about as much as all the work done here.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Problem
from app.logs import log_context
from app.problems import render
from app.settings import Settings

log = structlog.get_logger()

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:@/+=-]{1,128}")
LONGEST_LOGGED_PATH = 500
# Asked for by the platform, under names and addresses of its choosing, every few seconds.
PROBES = [
    "/health",
    "/metrics",  # option: metrics
]
PROBE = re.compile(rf"({'|'.join(PROBES)})(/|\Z)")
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
# FastAPI's documentation page loads Swagger UI from a public CDN.
DOCS_POLICY = (
    "default-src 'self'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    "img-src 'self' data: https://fastapi.tiangolo.com; frame-ancestors 'none'"
)
DOCS = {"/docs", "/docs/oauth2-redirect"}


class UntrustedHost(Problem):
    status = 400
    title = "Untrusted Host"
    type = "urn:problem:untrusted-host"


class OriginRefused(Problem):
    status = 400
    title = "Origin Refused"
    type = "urn:problem:origin-refused"


class CrossOrigin(CORSMiddleware):
    """Starlette's CORS, with a problem document for a preflight that is refused."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return response
        return render(OriginRefused("That origin, method or header is not allowed here."))


class ContentTooLarge(Problem):
    status = 413
    title = "Content Too Large"


@dataclass(slots=True)
class Exchange:
    """One request and its answer, as observers see them; when it arrives, only the request."""

    method: str
    path: str
    route: str | None = None  # the template, `/orders/{order_id}`, if one matched
    status: int = 0  # 0: the connection was lost before an answer
    duration_seconds: float = 0.0
    response_bytes: int = 0
    error: Exception | None = None  # what nothing handled, and a 500 answered


Observer = Callable[[Exchange], None]


def log_access(exchange: Exchange) -> None:
    """One line a request; probes that succeed would drown the rest, so they are debug lines."""
    is_quiet = is_probe(exchange.path) and exchange.status < HTTPStatus.BAD_REQUEST
    (log.debug if is_quiet else log.info)(
        "request",
        method=exchange.method,
        path=exchange.path[:LONGEST_LOGGED_PATH],
        route=exchange.route,
        status=exchange.status,
        duration_ms=round(exchange.duration_seconds * 1000, 2),
        bytes=exchange.response_bytes,
    )


class RequestLayer:
    """The outermost layer: see the module."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        is_draining: Callable[[], bool],
        arrivals: Sequence[Observer],
        observers: Sequence[Observer],
        answering: Callable[[ASGIApp], ASGIApp],
    ) -> None:
        """Wrap an application.

        Args:
            app: what is inside.
            settings: hosts and the body limit.
            is_draining: whether clients should come back to another replica.
            arrivals: called with every exchange when it begins.
            observers: called with every finished exchange.
            answering: wraps the answers given here, so that browsers may read them, too.
        """
        self._app = app
        self._answering = answering
        self._is_draining = is_draining
        self._arrivals = arrivals
        self._observers = observers
        self._max_body_bytes = settings.max_body_bytes
        self._any_host = "*" in settings.allowed_hosts
        self._hosts = frozenset(h for h in settings.allowed_hosts if not h.startswith("*."))
        self._domains = tuple(h[1:] for h in settings.allowed_hosts if h.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        exchange = Exchange(scope["method"], scope["path"])
        extra_headers = self._headers(scope, request_id)

        async def send_and_observe(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra_headers]
                if self._is_draining():  # so that clients come back to another replica
                    message["headers"].append((b"connection", b"close"))
            else:
                exchange.response_bytes += len(message.get("body", b""))
            await send(message)

        with log_context(request_id=request_id):
            try:
                _tell(self._arrivals, exchange)
                refusal = self._refusal(scope["path"], headers)
                if refusal:
                    answer = self._answering(render(refusal))
                    await answer(scope, receive, send_and_observe)
                    return
                if b"transfer-encoding" in headers:
                    receive = _limited(receive, self._max_body_bytes)
                await self._app(scope, receive, send_and_observe)
            except Exception as error:
                exchange.error = error
                # Here rather than in a handler: Starlette calls one for Exception outside of all
                # middleware, without request id or CORS headers, and raises again.
                log.exception("unhandled exception")
                if exchange.status:
                    raise  # half an answer is out: the server closes the connection
                await self._answering(render(Problem()))(scope, receive, send_and_observe)
            finally:
                exchange.duration_seconds = time.perf_counter() - started
                exchange.route = getattr(scope.get("route"), "path", None)
                _tell(self._observers, exchange)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Problem | None:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body_bytes:
            return ContentTooLarge(f"A request body may have {self._max_body_bytes} bytes.")
        if self._any_host or is_probe(path):
            return None
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else re.sub(r":\d+$", "", host)
        if name in self._hosts or name.endswith(self._domains):
            return None
        return UntrustedHost("This service does not answer under that host name.")

    @staticmethod
    def _headers(scope: Scope, request_id: str) -> list[tuple[bytes, bytes]]:
        policy = DOCS_POLICY if scope["path"] in DOCS else API_POLICY
        headers = [
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"content-security-policy", policy.encode()),
        ]
        if scope["scheme"] == "https":
            headers.append((b"strict-transport-security", b"max-age=31536000"))
        return headers


def _tell(observers: Sequence[Observer], exchange: Exchange) -> None:
    for observe in observers:
        observe(exchange)


def is_probe(path: str) -> bool:
    """Whether the platform asks: such are let in under any name, and left out of much."""
    return PROBE.match(path) is not None


def _request_id(sent: str) -> str:
    return sent if REQUEST_ID.fullmatch(sent) else os.urandom(16).hex()


def _limited(receive: Receive, max_bytes: int) -> Receive:
    """Count a chunked body as it arrives; its length is not known beforehand."""
    received = 0

    async def receive_within_limit() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise HTTPException(413)  # the one kind that FastAPI lets through while it reads a body
        return message

    return receive_within_limit
