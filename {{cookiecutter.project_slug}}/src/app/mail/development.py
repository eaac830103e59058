"""Mails of development without SMTP_HOST: an embedded SMTP server catches them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from app.mail.settings import MailSettings


@contextmanager
def catch_mails(settings: MailSettings, service_port: int) -> Iterator[None]:
    """Catch the mails of server processes, which inherit the environment, and show them on a page.

    Args:
        settings: of the service.
        service_port: of the service.
    """
    if not needs_server(settings):
        yield
        return
    from app.dev.mail.server import embedded_mail_server

    with embedded_mail_server(service_port) as values:
        for name, value in without_given(settings, values).items():
            os.environ[name.upper()] = str(value)
        yield


def needs_server(settings: MailSettings) -> bool:
    """Return whether to start the server. The production image does not have its library."""
    is_missing = settings.is_development and settings.smtp_host is None
    return is_missing and find_spec("aiosmtpd") is not None


def without_given(settings: MailSettings, values: dict[str, object]) -> dict[str, object]:
    """Return the values of the server. A link of the environment is kept: a frontend exists."""
    given = settings.model_fields_set & {"mail_link_url"}
    return {name: value for name, value in values.items() if name not in given}
