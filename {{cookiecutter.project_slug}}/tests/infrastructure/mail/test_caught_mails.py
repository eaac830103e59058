"""Development keeps mails in a folder, and `app mails` prints them."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.mail.commands import mails
from app.mail.definition import Message
from app.mail.settings import MailSettings
from app.mail.templates import Templates
from app.mail.transport import FOLDER, FolderTransport, SmtpTransport, create_transport

SETTINGS = MailSettings()


async def catch(number: int) -> None:
    message = Message(f"{number}@navy.example", {"token": f"token-{number}"})
    mail = Templates(SETTINGS).render("accounts.reset_password", str(number), None, message)
    transport = create_transport(SETTINGS)
    assert isinstance(transport, FolderTransport)
    await transport.send(mail)
    os.utime(FOLDER / f"{number}.eml", (number, number))


async def test_caught_mails_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    none = CliRunner().invoke(mails)
    assert (none.exit_code, none.output) == (1, f"Error: {FOLDER} has no mail\n")
    for number in (2, 1):
        await catch(number)
    newest = CliRunner().invoke(mails).output
    assert newest.startswith("To: 2@navy.example\nSubject: Choose a new password\n\n")
    assert "#action=reset-password&token=token-2" in newest
    assert newest.count("To:") == 1
    assert CliRunner().invoke(mails, ["--all"]).output.endswith(newest)


def test_transport_depends_on_the_environment_and_the_server() -> None:
    with_server = SETTINGS.model_copy(update={"smtp_host": "localhost"})
    assert isinstance(create_transport(with_server), SmtpTransport)
    assert create_transport(SETTINGS.model_copy(update={"environment": "test"})) is None
