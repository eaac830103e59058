"""The mail server of `app dev`."""

import os
import socket
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from app.dev.mail.server import PAGE_PORT_OFFSET, page_port
from app.mail.development import catch_mails
from app.mail.settings import MailSettings
from app.mail.transport import create_transport
from processes import get

SERVER = ("SMTP_HOST", "SMTP_PORT", "SMTP_TLS", "MAIL_LINK_URL")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in SERVER:
        monkeypatch.setenv(name, "before")  # the value is restored after the test
        monkeypatch.delenv(name)


def child_settings(**values: str) -> MailSettings:
    """Return the settings of a process that inherits the environment, and has further values."""
    given = {name.lower(): os.environ[name] for name in SERVER if name in os.environ}
    return MailSettings.model_validate(given | values)


def mail_to(address: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "no-reply@localhost", address, "Hello"
    message.set_content("Hello\n")
    return message


async def send(settings: MailSettings) -> None:
    transport = create_transport(settings)
    assert transport is not None
    await transport.send(mail_to("größe@navy.example"))


def free_service_port() -> int:
    """Return a port of a service whose page has a free port."""
    with socket.create_server(("127.0.0.1", 0)) as page:
        port: int = page.getsockname()[1] - PAGE_PORT_OFFSET
        return port


async def test_mails_of_child_processes_are_caught_and_shown() -> None:
    port = free_service_port()
    with catch_mails(MailSettings(), port):
        # A user of a mail provider in .env, without SMTP_HOST, is no reason to refuse mails.
        settings = child_settings(smtp_username="app", smtp_password="hunter2")
        await send(settings)
        page = f"http://127.0.0.1:{port + PAGE_PORT_OFFSET}"
        assert settings.mail_link_url == f"http://localhost:{port + PAGE_PORT_OFFSET}/account"
        assert "größe@navy.example" in get(page, timeout=60).text
    with pytest.raises(httpx.ConnectError):
        get(page)


def test_page_has_another_port_if_its_own_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with catch_mails(MailSettings(), port - PAGE_PORT_OFFSET):
            url = child_settings().mail_link_url
            assert f":{port}/" not in url
            assert get(url.replace("localhost", "127.0.0.1"), timeout=60).status_code == 200


def test_port_of_the_page_depends_on_that_of_the_service() -> None:
    assert [page_port(port) for port in (8000, 0, 65_535)] == [8025, 0, 0]


def test_frontend_of_the_environment_stays() -> None:
    os.environ["MAIL_LINK_URL"] = url = "http://localhost:5173/account"
    with catch_mails(child_settings(), 0):
        assert child_settings().mail_link_url == url


@pytest.mark.parametrize("values", [{"smtp_host": "smtp.invalid"}, {"environment": "production"}])
def test_no_mail_is_caught_outside_of_development_or_with_a_server(
    values: dict[str, str],
) -> None:
    with catch_mails(MailSettings.model_validate(values), 0):
        assert not set(SERVER) & set(os.environ)


def test_mails_stay_stored_without_a_server() -> None:
    assert create_transport(MailSettings()) is None
