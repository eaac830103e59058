"""The mail server of `app dev`: SMTP and the page of mails, in a thread of their own."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from socket import create_server, socket
from threading import Thread
from typing import Any

import structlog

PAGE_PORT_OFFSET = 25  # 8025 for the service's 8000, so that links in kept mails stay valid

THREAD = "mail server"

log = structlog.get_logger()


def listen(port: int = 0) -> socket:
    """Bind a port of this machine that other machines cannot reach. 0 is any free one."""
    return create_server(("127.0.0.1", port))


def page_port(service_port: int) -> int:
    """Return the preferred port of the page, beside that of a service. 0 is any free one."""
    port = service_port + PAGE_PORT_OFFSET if service_port else 0
    return port if port < 2**16 else 0


def mail_values(smtp: socket, port: int) -> dict[str, object]:
    """Return the settings of a process that sends mails to a server.

    Args:
        smtp: of the server.
        port: of the page. Links in mails open a part of it in place of a page of the frontend.
    """
    host, smtp_port = smtp.getsockname()
    values = {"smtp_host": host, "smtp_port": smtp_port, "smtp_tls": "none"}
    return {**values, "mail_link_url": f"http://localhost:{port}/account"}


@contextmanager
def embedded_mail_server(service_port: int) -> Iterator[dict[str, object]]:
    """Catch mails, and show them on a page.

    The thread imports the libraries, so that the start of the service does not wait for them.
    Until then, the sockets queue connections.

    Args:
        service_port: of the service on this machine.

    Yields:
        The settings of a service that sends mails to the server.
    """
    smtp = listen()
    try:
        page = listen(page_port(service_port))
    except OSError:  # another program has the port
        page = listen()
    port = page.getsockname()[1]
    log.info("mails", page=f"http://localhost:{port}")
    stop = asyncio.Event()
    serving = _serve(smtp, page, f"http://localhost:{service_port}", stop)
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    loop = runner.get_loop()
    thread = Thread(target=_run, args=(runner, serving), name=THREAD)
    with smtp, page:
        thread.start()
        try:
            yield mail_values(smtp, port)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


def _run(runner: asyncio.Runner, serving: Coroutine[Any, Any, None]) -> None:
    with runner:  # closes the loop in its own thread
        runner.run(serving)


async def _serve(smtp: socket, page: socket, service_url: str, stop: asyncio.Event) -> None:
    import uvicorn  # noqa: PLC0415 - in the thread

    from app.dev.mail.page import create_page  # noqa: PLC0415
    from app.dev.mail.smtp import open_smtp_server  # noqa: PLC0415

    # Lines such as "Started server process" would look like those of the service.
    logging.getLogger("uvicorn.error").addFilter(
        lambda line: line.threadName != THREAD or line.levelno >= logging.WARNING
    )
    config = uvicorn.Config(
        create_page(service_url),
        access_log=False,
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    async with open_smtp_server(smtp, f"http://localhost:{page.getsockname()[1]}"):
        serving = asyncio.create_task(server.serve(sockets=[page]))
        await stop.wait()
        server.should_exit = True
        await serving
