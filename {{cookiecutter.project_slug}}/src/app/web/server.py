"""The HTTP server: a socket for each address family, and a drain before the shutdown."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from types import FrameType

import click
import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess

from app.web.checks import Health
from app.web.settings import WebSettings

log = structlog.get_logger()

# Longer than proxies keep an idle connection (60 s is usual), so that the proxy closes it first.
KEEP_ALIVE_SECONDS = 75
# The parent replaces a process that does not respond for this long. With little CPU, the first
# imports take longer than uvicorn's default of 5 s. The parent may take as long to notice a process
# that has ended.
PROCESS_TIMEOUT_SECONDS = 10


class ListenError(click.ClickException):
    """The address or port cannot be bound."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind the sockets of the server.

    Each address family has its own socket. On a socket for both families, IPv4 clients appear as
    ::ffff:10.0.0.1, and the IPv4 addresses of trusted proxies would not match.

    Args:
        host: an address or name. Empty is every IPv4 and IPv6 address of this machine.
        port: the TCP port. 0 is any free one.

    Raises:
        ListenError: the port is in use, or this machine does not have the address.
    """
    try:
        if host:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return [socket.create_server((host, port), family=family)]
        sockets = [socket.create_server(("", port))]
        if socket.has_dualstack_ipv6():  # Python and the kernel support IPv6
            port = sockets[0].getsockname()[1]
            sockets.append(socket.create_server(("", port), family=socket.AF_INET6))
    except OSError as error:
        place = f"port {port}" + (f" of {host}" if host else "")
        # Python repeats the address in parentheses.
        reason = str(error.strerror or error).partition(" (while ")[0]
        raise ListenError(
            f"cannot listen on {place}: {reason}. "
            "Set PORT to a free port, and HOST to an address of this machine, or leave it empty."
        ) from error
    return sockets


def serve(factory: str, settings: WebSettings, *, reload: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        factory: "module:function" that returns the application. Each process calls it.
        settings: the address, the limits and the number of processes.
        reload: restart when a source file changes.

    Raises:
        ListenError: the address or port cannot be bound.
    """
    sockets = listen(settings.host, settings.port)
    # After its shutdown, uvicorn raises the signal again. A normal exit lets the callers clean up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    config = uvicorn.Config(
        factory,
        factory=True,
        access_log=False,  # app.web.access_log logs the request id and the route
        forwarded_allow_ips=settings.forwarded_allow_ips,
        http="app.web.http_protocol:HttpProtocol",  # imported after the process responds
        lifespan="on",
        log_config=None,
        reload=reload,
        reload_dirs=["src"] if reload else None,
        server_header=False,
        timeout_graceful_shutdown=settings.graceful_timeout_seconds,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_worker_healthcheck=PROCESS_TIMEOUT_SECONDS,
        workers=settings.web_concurrency,
    )
    url = url_of(sockets[0])
    log.info("listening", url=url, **({"docs": f"{url}/docs"} if settings.serves_docs else {}))
    with suppress(KeyboardInterrupt):
        if reload:
            ChangeReload(config, uvicorn.Server(config).run, sockets=sockets).run()
        elif settings.web_concurrency > 1:
            supervisor = Multiprocess(config, sockets=sockets)
            supervisor.run()
            # uvicorn has no documented way to see that a process failed to start: its own command
            # exits with 0. Without this, an orchestrator would take the failure for a normal end.
            if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
                sys.exit(STARTUP_FAILURE)
        else:
            uvicorn.Server(config).run(sockets=sockets)


def url_of(listener: socket.socket) -> str:
    """Return the URL of a socket, for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "127.0.0.1", "::", "::1"}:  # noqa: S104 - only compared
        return f"http://localhost:{port}"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def drain_on_sigterm(health: Health, drain_seconds: float) -> Iterator[None]:
    """Let readiness fail from SIGTERM on, and stop the server only after `drain_seconds`.

    uvicorn closes its sockets first, while the load balancer still sends requests. Its signal
    handler is installed before the lifespan begins, and is called after the drain. A second
    SIGTERM ends the drain.
    """
    stop = signal.getsignal(signal.SIGTERM)
    if not callable(stop) or threading.current_thread() is not threading.main_thread():
        yield  # without a server, as in tests
        return
    loop = asyncio.get_running_loop()

    def begin(signum: int, frame: FrameType | None) -> None:
        log.info("draining", seconds=drain_seconds)
        loop.call_later(drain_seconds, stop, signum, frame)

    def drain(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, stop)
        health.is_draining = True
        # The signal may interrupt a log line, which holds a lock, in the context of a request.
        loop.call_soon_threadsafe(begin, signum, frame, context=Context())

    signal.signal(signal.SIGTERM, drain)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is drain:
            signal.signal(signal.SIGTERM, stop)
