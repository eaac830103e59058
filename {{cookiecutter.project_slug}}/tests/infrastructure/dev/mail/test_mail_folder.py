"""The folder of caught mails, and `app mails`, which prints them."""

import os
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.dev.mail.folder import FOLDER, KEPT_MAILS, find_mail, find_mails, keep_mail
from app.mail.commands import mails


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return FOLDER


def keep(number: int) -> str:
    """Keep a mail whose file has this time, in seconds, and return its id."""
    message = EmailMessage()
    message["To"], message["Subject"] = f"{number}@navy.example", f"Größe {number}"
    message.set_content(f"https://app.example.com/#token={number}\n")
    mail = keep_mail(message.as_bytes(policy=SMTP))
    os.utime(FOLDER / f"{mail.id}.eml", (number, number))
    return mail.id


def test_caught_mails_are_printed_without_carriage_returns() -> None:
    none = CliRunner().invoke(mails)
    assert (none.exit_code, none.output) == (1, f"Error: {FOLDER} has no mail\n")
    for number in (2, 1):
        keep(number)
    newest = "To: 2@navy.example\nSubject: Größe 2\n\nhttps://app.example.com/#token=2\n\n"
    assert CliRunner().invoke(mails).output == newest
    every = CliRunner().invoke(mails, ["--all"]).output
    assert every.endswith(newest)
    assert every.count("To:") == 2


def test_newest_mails_are_kept_and_the_others_are_deleted(folder: Path) -> None:
    for number in range(KEPT_MAILS + 3):
        keep(number)
    kept = [mail.message["To"] for mail in find_mails()]
    assert kept == [f"{number}@navy.example" for number in range(3, KEPT_MAILS + 3)]
    assert len(list(folder.iterdir())) == KEPT_MAILS


@pytest.mark.parametrize("mail_id", ["", "*", "../secret", "unknown"])
def test_id_of_no_mail_finds_none(folder: Path, mail_id: str) -> None:
    keep(1)
    (folder.parent / "secret.eml").write_bytes(b"Subject: secret\n\n")
    assert find_mail(mail_id) is None
