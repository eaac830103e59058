"""Send mails with SMTP."""

from email.message import EmailMessage
from typing import Protocol

import aiosmtplib
import structlog

from app.mail.settings import MailSettings

log = structlog.get_logger()


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


def create_transport(settings: MailSettings) -> Transport | None:
    """Return the transport of the settings. Without a server there is none: mails stay stored."""
    if settings.smtp_host is not None:
        return SmtpTransport(settings)
    if settings.is_development:
        log.warning("mails are not sent", reason="SMTP_HOST is missing")
    return None
