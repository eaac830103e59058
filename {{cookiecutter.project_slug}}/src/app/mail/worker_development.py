"""Mails of a worker in development: the composition root catches them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.mail.development import needs_server, without_given
from app.mail.settings import MailSettings


@asynccontextmanager
async def catch_mails_of_worker(
    settings: MailSettings, service_port: int
) -> AsyncIterator[MailSettings]:
    """Catch the mails of this process in development. The page of `app dev` shows them.

    The process has a server of its own, because a container cannot reach that of another one.

    Args:
        settings: of the service.
        service_port: of the service.

    Yields:
        The settings for sending mails.
    """
    if not needs_server(settings):
        yield settings
        return
    from app.dev.mail.server import listen, mail_values, page_port  # noqa: PLC0415 - development
    from app.dev.mail.smtp import open_smtp_server  # noqa: PLC0415

    with listen() as smtp:
        values = without_given(settings, mail_values(smtp, page_port(service_port)))
        async with open_smtp_server(smtp, None):
            yield settings.model_copy(update=values)
