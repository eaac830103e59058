"""The job that sends mails in a worker."""

from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.session import Database, open_database
from app.dev.mail.folder import find_mails
from app.features.accounts.mails import email_changed
from app.jobs.attempts import attempt
from app.jobs.registry import find_jobs
from app.mail.jobs import mail_jobs, send_in_worker
from app.mail.outbox import Outbox
from app.mail.settings import MailSettings
from app.mail.transport import SmtpTransport
from app.mail.worker_development import catch_mails_of_worker
from app.settings import Settings
from conftest import Lines, settings_for
from smtp_server import open_smtp_server
from sql import fetch
from stored_jobs import context_of

JOBS = text("SELECT id, name FROM jobs")


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


async def test_mail_is_stored_with_a_job_that_sends_it(
    database: Database, database_url: str, lines: Lines
) -> None:
    outbox = Outbox(send_in_worker)
    async with database.session() as session:
        await outbox.send(session, email_changed, old_email="grace@navy.example")
    (job,) = await fetch(database, JOBS)
    assert job["name"] in find_jobs()
    async with open_smtp_server() as server:
        jobs = mail_jobs(settings_for(database_url, **server.values))
        assert await attempt(context_of(database, *jobs.values()), job["id"]) is None
    assert [mail["To"] for mail in server.mails] == ["grace@navy.example"]
    assert [line["result"] for line in lines() if line["message"] == "job done"] == [1]


async def test_rolled_back_mail_enqueues_no_job(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.session() as session:
            await Outbox(send_in_worker).send(session, email_changed, old_email="a@b.example")
            raise RuntimeError
    assert await fetch(database, JOBS) == []


async def test_mails_of_a_worker_are_caught_in_development(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@b.example", "c@d.example", "Hello"
    async with catch_mails_of_worker(MailSettings(), 8000) as settings:
        await SmtpTransport(settings).send(message)
    (mail,) = find_mails()
    assert mail.message["To"] == "c@d.example"
    assert settings.mail_link_url == "http://localhost:8025/account"


async def test_mails_of_a_deployed_worker_go_to_its_server() -> None:
    deployed = MailSettings(environment="production", smtp_host="smtp.invalid")
    async with catch_mails_of_worker(deployed, 8000) as settings:
        assert settings is deployed
