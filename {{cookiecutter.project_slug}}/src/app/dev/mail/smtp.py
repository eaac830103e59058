"""An SMTP server that keeps every mail in a folder."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from app.dev.mail.folder import keep_mail

log = structlog.get_logger()
logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd logs every command


class _Handler:
    def __init__(self, page_url: str | None) -> None:
        self._page_url = page_url

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd calls it
        assert isinstance(envelope.content, bytes)
        mail = keep_mail(envelope.content)
        show = f"{self._page_url}/mails/{mail.id}" if self._page_url else "uv run app mails"
        log.info("mail caught", subject=mail.message["Subject"], show=show)
        return "250 kept"


@asynccontextmanager
async def open_smtp_server(listener: socket.socket, page_url: str | None) -> AsyncIterator[None]:
    """Accept every mail and every password, and deliver none.

    Args:
        listener: a bound socket.
        page_url: of the page that shows the mails, for the log.
    """
    loop = asyncio.get_running_loop()

    def create_protocol() -> SMTP:
        return SMTP(
            _Handler(page_url),
            enable_SMTPUTF8=True,
            hostname="localhost",
            auth_require_tls=False,
            authenticator=lambda *_: AuthResult(success=True),
            loop=loop,
        )

    server = await loop.create_server(create_protocol, sock=listener)
    try:
        yield
    finally:
        server.close()
