"""One pure-ASGI layer around every request.

Request id, access log, trusted hosts, body limit and security headers are one class rather
than five, because each further layer costs about as much as all the work done here. Only who
asks for it, a browser from elsewhere or a client that can unpack, goes through more layers.
"""

import os
import re
import time
from collections.abc import Callable, Sequence

import structlog
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cross_origin import allow_origins
from app.errors import Problem
from app.exchange import Exchange, Observer, is_probe
from app.logs import LogContext
from app.problems import render
from app.settings import Settings

log = structlog.get_logger()

REQUEST_ID = re.compile(r"[A-Za-z0-9_.:@/+=-]{1,128}")
# A name, or an IPv6 address in brackets, and perhaps a port (RFC 9110, 7.2).
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_-][a-z0-9_.-]*)(:[0-9]*)?")
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
DOCS_HEADERS = (*SECURITY_HEADERS, (b"content-security-policy", DOCS_POLICY))
HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")


class UntrustedHost(Problem):
    status = 400
    title = "Untrusted Host"
    type = "urn:problem:untrusted-host"


class ContentTooLarge(Problem):
    status = 413
    title = "Content Too Large"


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
    ) -> None:
        """Wrap an application.

        Args:
            app: what is inside.
            settings: hosts, origins and the body limit.
            is_draining: whether clients should come back to another replica.
            arrivals: called with every exchange when it begins.
            observers: called with every finished exchange.
        """
        self._app = app
        self._settings = settings
        zipped = GZipMiddleware(app, minimum_size=1024, compresslevel=4)
        self._negotiating = allow_origins(zipped, settings)
        # A cache must not give an answer of the one kind to a client of the other.
        self._vary = (b"vary", b"Accept-Encoding" + b", Origin" * bool(settings.cors_origins))
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
        # Of several with one name the first, which is the one that requests show of them.
        headers = dict(reversed(scope["headers"]))
        request_id = _request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        exchange = Exchange(scope["method"], scope["path"])
        extra_headers = self._headers(scope, request_id)
        app = self._negotiating
        if b"origin" not in headers and b"gzip" not in headers.get(b"accept-encoding", b""):
            app = self._app
            extra_headers.append(self._vary)

        async def send_and_observe(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra_headers]
                if self._is_draining():  # so that clients come back to another replica
                    message["headers"].append((b"connection", b"close"))
            else:
                exchange.response_bytes += len(message.get("body", b""))
            await send(message)
            # Not when the application returns: background tasks come before.
            exchange.duration_seconds = _since(started)

        with LogContext(request_id=request_id):
            try:
                _tell(self._arrivals, exchange)
                refusal = self._refusal(scope["path"], headers)
                if refusal:
                    app = self._answer(refusal)
                elif b"transfer-encoding" in headers:
                    receive = _limited(receive, self._max_body_bytes)
                await app(scope, receive, send_and_observe)
            except Exception as error:
                exchange.error = error
                # Here rather than in a handler: Starlette calls one for Exception outside of all
                # middleware, without request id or CORS headers, and raises again.
                log.exception("unhandled exception")
                if exchange.status:
                    raise  # half an answer is out: the server closes the connection
                await self._answer(Problem())(scope, receive, send_and_observe)
            finally:
                # Until the connection was lost, if no answer was sent.
                exchange.duration_seconds = exchange.duration_seconds or _since(started)
                exchange.route = getattr(scope.get("route"), "path", None)
                _tell(self._observers, exchange)

    def _answer(self, problem: Problem) -> ASGIApp:
        return allow_origins(render(problem), self._settings)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Problem | None:
        length = headers.get(b"content-length", b"0")
        # int() would raise over 4,300 digits.
        if length.isdigit() and float(length) > self._max_body_bytes:
            return ContentTooLarge(f"A request body may have {self._max_body_bytes} bytes.")
        if self._any_host or is_probe(path):
            return None
        host = HOST.fullmatch(headers.get(b"host", b"").decode("latin-1").lower())
        if host and (host[1] in self._hosts or host[1].endswith(self._domains)):
            return None
        return UntrustedHost("This service does not answer under that host name.")

    @staticmethod
    def _headers(scope: Scope, request_id: str) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"x-request-id", request_id.encode()),
            *(DOCS_HEADERS if scope["path"] in DOCS else API_HEADERS),
        ]
        if scope["scheme"] == "https":
            headers.append(HTTPS_ONLY)
        return headers


def _tell(observers: Sequence[Observer], exchange: Exchange) -> None:
    for observe in observers:
        observe(exchange)


def _since(started: float) -> float:
    return time.perf_counter() - started


def _request_id(sent: str) -> str:
    return sent if sent and REQUEST_ID.fullmatch(sent) else os.urandom(16).hex()


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
