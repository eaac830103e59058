"""Send mails with SMTP, or keep them in a folder in development."""

import asyncio
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol

import aiosmtplib
import structlog

from app.mail.settings import MailSettings

log = structlog.get_logger()

FOLDER = Path(".data/mail")


class Transport(Protocol):
    async def send(self, message: EmailMessage) -> None: ...


class SmtpTransport:
    """Send each mail on a connection of its own. TLS is required unless the settings forbid it."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    async def send(self, message: EmailMessage) -> None:
        settings = self._settings
        password = settings.smtp_password
        await aiosmtplib.send(
            message,
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else None,
            use_tls=settings.smtp_tls == "tls",
            start_tls=settings.smtp_tls == "starttls",
            timeout=settings.smtp_timeout_seconds,
        )


class FolderTransport:
    """Keep mails in files of the form .eml, which mail programs open."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        path = self._folder / f"{message['Message-ID'].strip('<>').partition('@')[0]}.eml"
        await asyncio.to_thread(self._write, path, message.as_bytes())
        log.info("mail caught", subject=message["Subject"], show="uv run app mails")

    def _write(self, path: Path, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def create_transport(settings: MailSettings) -> Transport | None:
    """Return the transport of the settings. Tests without a server have none: mails stay stored."""
    if settings.smtp_host is not None:
        return SmtpTransport(settings)
    return FolderTransport() if settings.is_development else None
