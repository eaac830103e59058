"""Mails are sent once their transaction is committed, and retried until they are sent."""

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, open_database
from app.features.accounts.mails import email_changed
from app.mail.background import open_background_sender
from app.mail.outbox import Outbox
from app.mail.sender import LEASE, MAX_ATTEMPTS, SEND_SECONDS, MailSender
from app.settings import Settings
from conftest import Lines, settings_for
from smtp_server import SmtpServer, open_smtp_server
from sql import fetch

ADDRESS = "grace@navy.example"
MAILS = text("SELECT attempts, due_at - now() AS pause, created_at FROM mails")


async def do_nothing(_session: AsyncSession, _mail_id: str) -> None:
    """Leave the sender to the test."""


OUTBOX = Outbox(do_nothing)


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


@pytest.fixture
async def server() -> AsyncIterator[SmtpServer]:
    async with open_smtp_server() as server:
        yield server


@pytest.fixture
def sender(server: SmtpServer, database_url: str) -> MailSender:
    return MailSender(settings_for(database_url, **server.values))


async def store(database: Database, address: str = ADDRESS) -> None:
    async with database.session() as session:
        await OUTBOX.send(session, email_changed, old_email=address)


async def execute(database: Database, statement: str) -> None:
    async with database.session() as session:
        await session.execute(text(statement))


async def test_committed_mail_is_sent_once_as_text_and_html(
    database: Database, sender: MailSender, server: SmtpServer
) -> None:
    await store(database)
    assert await sender.send_next(database)
    assert not await sender.send_next(database)
    assert await fetch(database, MAILS) == []
    (mail,) = server.mails
    assert (mail["To"], mail["From"]) == (ADDRESS, "no-reply@localhost")
    assert mail["Subject"] == "Your e-mail address was changed"
    assert mail["Auto-Submitted"] == "auto-generated"
    parts = [part.get_content_type() for part in mail.iter_parts()]
    assert parts == ["text/plain", "text/html"]


async def test_mail_of_a_rolled_back_transaction_is_not_sent(
    database: Database, sender: MailSender, server: SmtpServer
) -> None:
    with pytest.raises(RuntimeError):
        async with database.session() as session:
            await OUTBOX.send(session, email_changed, old_email=ADDRESS)
            raise RuntimeError
    assert not await sender.send_next(database)
    assert server.mails == []


async def test_mail_to_a_reserved_domain_is_dropped(
    database: Database, sender: MailSender, server: SmtpServer
) -> None:
    await store(database, "grace@smoke-test.invalid")
    assert await sender.send_next(database)
    assert await fetch(database, MAILS) == []
    assert server.commands == []


async def test_mail_with_arguments_that_it_does_not_have_is_refused(database: Database) -> None:
    async with database.session() as session:
        with pytest.raises(TypeError, match=r"accounts.email_changed: .*old_email"):
            await OUTBOX.send(session, email_changed, new_email=ADDRESS)


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
async def test_temporary_failure_is_retried_with_the_same_message_id(
    database: Database, sender: MailSender, server: SmtpServer, lines: Lines, command: str
) -> None:
    server.replies[command] = f"451 4.3.0 <{ADDRESS}>: try again"
    await store(database)
    assert await sender.send_next(database)
    assert not await sender.send_next(database), "it is not due"
    (row,) = await fetch(database, MAILS)
    assert row["attempts"] == 1
    assert row["pause"] <= timedelta(seconds=30)
    (line,) = [line for line in lines() if line["message"] == "mail will be retried"]
    assert ADDRESS not in json.dumps(line)
    ids = [str(row["id"]) for row in await fetch(database, text("SELECT id FROM mails"))]
    await execute(database, "UPDATE mails SET due_at = now()")
    server.replies.clear()
    assert await sender.send_next(database)
    assert [mail["Message-ID"] for mail in server.mails] == [f"<{ids[0]}@localhost>"]


async def test_refused_recipient_is_logged_without_the_address_and_not_retried(
    database: Database, sender: MailSender, server: SmtpServer, lines: Lines
) -> None:
    server.replies["RCPT"] = f"550 5.1.1 <{ADDRESS}>: no such user"
    await store(database)
    assert await sender.send_next(database)
    assert await fetch(database, MAILS) == []
    (line,) = [line for line in lines() if line["message"] == "mail refused"]
    assert (line["mail"], line["codes"]) == ("accounts.email_changed", [550])
    assert ADDRESS not in json.dumps(line)


async def test_mail_is_retried_when_the_server_is_down(
    database: Database, database_url: str, server: SmtpServer, lines: Lines
) -> None:
    values = server.values | {"smtp_port": 1}
    await store(database)
    assert await MailSender(settings_for(database_url, **values)).send_next(database)
    (line,) = [line for line in lines() if line["message"] == "mail will be retried"]
    assert line["reason"] == "SMTPConnectError"
    assert len(await fetch(database, MAILS)) == 1


@pytest.mark.parametrize(("command", "code"), [("AUTH", 535), ("MAIL", 550), ("DATA", 554)])
async def test_refused_sender_is_retried(
    database: Database,
    database_url: str,
    server: SmtpServer,
    lines: Lines,
    command: str,
    code: int,
) -> None:
    """The operator corrects a wrong password or confirms the sender, so no mail is lost."""
    server.replies[command] = f"{code} 5.7.8 refused"
    values = server.values | {"smtp_username": "app", "smtp_password": "wrong"}
    await store(database)
    assert await MailSender(settings_for(database_url, **values)).send_next(database)
    assert len(await fetch(database, MAILS)) == 1
    (line,) = [line for line in lines() if line["message"] == "mail will be retried"]
    assert line["codes"] == [code]


async def test_mail_that_fails_for_good_is_kept_for_the_retention(
    database: Database, sender: MailSender, server: SmtpServer, lines: Lines
) -> None:
    assert MAX_ATTEMPTS == 12
    server.replies["DATA"] = "451 try again"
    await store(database)
    await execute(database, "UPDATE mails SET attempts = 11")
    assert await sender.send_next(database)
    (row,) = await fetch(database, MAILS)
    assert (row["attempts"], row["pause"]) == (MAX_ATTEMPTS, None)
    assert [line["level"] for line in lines() if line["message"] == "mail failed"] == ["error"]
    await sender.delete_failed(database)
    assert len(await fetch(database, MAILS)) == 1
    await execute(database, "UPDATE mails SET created_at = created_at - interval '31 days'")
    await sender.delete_failed(database)
    assert await fetch(database, MAILS) == []


class StuckTransport:
    """Waits until the test ends the attempt."""

    def __init__(self) -> None:
        self.is_sending = asyncio.Event()

    async def send(self, _message: EmailMessage) -> None:
        self.is_sending.set()
        await asyncio.Event().wait()


async def test_mail_of_a_killed_process_is_sent_by_another_after_the_lease(
    database: Database, sender: MailSender, server: SmtpServer, settings: Settings
) -> None:
    assert timedelta(seconds=SEND_SECONDS) < LEASE
    await store(database)
    stuck = StuckTransport()
    attempt = asyncio.create_task(MailSender(settings, stuck).send_next(database))
    await stuck.is_sending.wait()
    assert database.limiter.in_use == 0, "an attempt holds no connection while it sends"
    assert not await sender.send_next(database)
    attempt.cancel()
    await asyncio.wait({attempt})
    (row,) = await fetch(database, MAILS)
    assert row["pause"] <= LEASE
    await execute(database, "UPDATE mails SET due_at = now()")  # the lease has ended
    assert await sender.send_next(database)
    assert len(server.mails) == 1


async def test_concurrent_senders_send_each_mail_once(
    database: Database, sender: MailSender, server: SmtpServer
) -> None:
    addresses = {f"{number}@navy.example" for number in range(20)}
    for address in addresses:
        await store(database, address)

    async def send_all() -> None:
        while await sender.send_next(database):
            pass

    await asyncio.gather(*(send_all() for _ in range(4)))
    assert sorted(mail["To"] for mail in server.mails) == sorted(addresses)


async def test_background_sender_sends_after_the_commit(
    database: Database, database_url: str, server: SmtpServer
) -> None:
    settings = settings_for(database_url, **server.values)
    async with open_background_sender(settings, database) as send_on_commit:
        outbox = Outbox(send_on_commit)
        async with database.session() as session:
            await outbox.send(session, email_changed, old_email=ADDRESS)
        await server.wait_for(1)


async def test_background_sender_sends_what_another_process_has_left(
    database: Database, database_url: str, server: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.mail.background.START_SECONDS", 0)
    await store(database)
    settings = settings_for(database_url, **server.values)
    async with open_background_sender(settings, database):
        await server.wait_for(1)


async def test_server_without_tls_gets_no_mail_and_no_password(
    database: Database, database_url: str, server: SmtpServer
) -> None:
    values = server.values | {"smtp_tls": "starttls"}
    values |= {"smtp_username": "app", "smtp_password": "hunter2"}
    await store(database)
    assert await MailSender(settings_for(database_url, **values)).send_next(database)
    assert not {"AUTH", "MAIL", "DATA"} & set(server.commands)
    assert len(await fetch(database, MAILS)) == 1


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, to create a certificate")
@pytest.mark.parametrize("is_trusted", [True, False])
async def test_starttls_sends_to_a_server_with_a_trusted_certificate_only(
    database: Database,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_trusted: bool,
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    create: list[Any] = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    create += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    create += ["-keyout", key, "-out", certificate]
    subprocess.run(create, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with open_smtp_server(context) as server:
        values = server.values | {"smtp_tls": "starttls", "smtp_host": "localhost"}
        await store(database)
        assert await MailSender(settings_for(database_url, **values)).send_next(database)
    assert len(server.mails) == is_trusted
    assert ("MAIL" in server.commands) == is_trusted
