"""The HTTP server: a socket for each address family, and a drain before the end."""

import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context
from types import FrameType

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import ChangeReload, Multiprocess

from app.web.checks import Health
from app.web.hosts import TARGET_URL
from app.web.settings import WebSettings

log = structlog.get_logger()

# Longer than a proxy keeps an idle connection (60 s is usual): the proxy must be the one to close.
KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048
MAX_HEAD_BYTES = 65_536  # of a request, in steps of what is read at once; proxies send less


class ListenError(Exception):
    """The port cannot be listened on."""


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, with a limit to what comes before a body and after it.

    By itself it keeps a head of any size in memory, before anybody can look at it. And it takes a
    trailer, which proxies pass on unseen, for a header, as in X-Forwarded-For (RFC 9110, 6.5.1).
    And it drops the host of a target that is a URL, which `hosts.py` compares with the Host field.
    """

    _is_in_head = True
    _kept_bytes = 0  # since the last that was passed on

    def data_received(self, data: bytes) -> None:
        self._kept_bytes += len(data)
        super().data_received(data)
        if self._kept_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            message = "The head of the request is too large."
            self.logger.warning(message)
            self.send_400_response(message)

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._kept_bytes = 0
        if not self.url.startswith(b"/"):  # uvicorn drops the host: its pull request 3097
            self.scope["extensions"] = {TARGET_URL: {"url": self.url}}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._kept_bytes = 0
        super().on_body(body)


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind before anything else starts.

    Two sockets rather than one for both families: through one, IPv4 peers look like
    ::ffff:10.0.0.1, and no rule for a trusted proxy's IPv4 address or network would match.

    Args:
        host: an address or name; empty for every IPv4 and IPv6 address of this machine.
        port: 0 for any free one.

    Raises:
        ListenError: the port is taken, or the address is not this machine's.
    """
    try:
        if host:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return [socket.create_server((host, port), family=family, backlog=BACKLOG)]
        sockets = [socket.create_server(("", port), backlog=BACKLOG)]
        if socket.has_dualstack_ipv6():  # compiled in, and switched on in the kernel
            port = sockets[0].getsockname()[1]
            family = socket.AF_INET6
            sockets.append(socket.create_server(("", port), family=family, backlog=BACKLOG))
    except OSError as error:
        place = f"port {port}" + (f" of {host}" if host else "")
        # What Python adds in brackets names the place again.
        reason = str(error.strerror or error).partition(" (while ")[0]
        raise ListenError(
            f"cannot listen on {place}: {reason}. "
            "Set PORT to a free port, and HOST to an address of this machine or to nothing."
        ) from error
    return sockets


def serve(factory: str, settings: WebSettings, *, reload: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        factory: "module:function" that makes the application, called in every process.
        settings: address, limits and processes.
        reload: restart when a source file changes.

    Raises:
        ListenError: see listen().
    """
    sockets = listen(settings.host, settings.port)
    # uvicorn stops gracefully and then raises the signal again: leave by way of the callers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        factory,
        factory=True,
        access_log=False,  # ours has the request id and the route
        backlog=BACKLOG,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        http=HttpProtocol,
        lifespan="on",
        log_config=None,
        reload=reload,
        reload_dirs=["src"] if reload else None,
        server_header=False,
        timeout_graceful_shutdown=settings.graceful_timeout_seconds,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        workers=settings.web_concurrency,
    )
    with ExitStack() as stack:
        for listener in sockets:
            stack.enter_context(listener)
        port = sockets[0].getsockname()[1]
        url = f"http://{_shown(settings.host)}:{port}"
        log.info("listening", url=url, **({"docs": f"{url}/docs"} if settings.serves_docs else {}))
        stack.enter_context(suppress(KeyboardInterrupt))
        if reload:
            # It counts byte code that is being written, too; uvicorn says which source changed.
            logging.getLogger("watchfiles.main").setLevel(logging.WARNING)
            ChangeReload(config, uvicorn.Server(config).run, sockets=sockets).run()
        elif settings.web_concurrency > 1:
            supervisor = Multiprocess(config, sockets=sockets)
            supervisor.run()
            if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
                sys.exit(STARTUP_FAILURE)
        else:
            uvicorn.Server(config).run(sockets=sockets)


def _shown(host: str) -> str:
    """A host as a person may click on it."""
    if host in {"", "0.0.0.0", "127.0.0.1", "::", "::1"}:  # noqa: S104 - only compared with
        return "localhost"
    return f"[{host}]" if ":" in host else host


@contextmanager
def drain_on_sigterm(health: Health, drain_seconds: float) -> Iterator[None]:
    """On SIGTERM fail readiness at once, but go on serving for a while before the server stops.

    uvicorn closes its socket first of all, while the load balancer still sends requests. So
    its own handler, which is in place before the lifespan begins, is called after the drain.
    A second SIGTERM ends the drain.
    """
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop) or threading.current_thread() is not threading.main_thread():
        yield  # not under a server: tests
        return
    loop = asyncio.get_running_loop()

    def begin(signum: int, frame: FrameType | None) -> None:
        log.info("draining", seconds=drain_seconds)
        loop.call_later(drain_seconds, stop, signum, frame)

    def drain(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, stop)
        health.is_draining = True
        # Not here: the signal may have come while a log line was being written, under its lock;
        # and not in the context of the request that it may have come in.
        loop.call_soon_threadsafe(begin, signum, frame, context=Context())

    signal.signal(signal.SIGTERM, drain)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is drain:
            signal.signal(signal.SIGTERM, stop)
