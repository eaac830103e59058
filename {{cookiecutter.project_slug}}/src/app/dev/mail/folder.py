"""The folder of caught mails. Their files have the form .eml, which mail programs open."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

FOLDER = Path(".data/mail")
KEPT_MAILS = 100


@dataclass(frozen=True)
class CaughtMail:
    """A mail. The id is the name of its file, without the extension."""

    id: str
    caught_at: datetime
    message: EmailMessage

    @property
    def text(self) -> str:
        return self._body("plain")

    @property
    def html(self) -> str:
        return self._body("html")

    def _body(self, kind: str) -> str:
        body = self.message.get_body([kind])
        return str(body.get_content()) if body else ""


def keep_mail(content: bytes, folder: Path = FOLDER) -> CaughtMail:
    """Write a mail, and delete the oldest ones beyond KEPT_MAILS.

    Args:
        content: of the mail. Its lines may end with CRLF, as in SMTP.
        folder: is created if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uuid.uuid4().hex}.eml"
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(content.replace(b"\r\n", b"\n"))
    unfinished.replace(path)  # a reader sees whole mails only
    for old in _paths(folder)[:-KEPT_MAILS]:
        old.unlink(missing_ok=True)
    return _read(path)


def find_mails(folder: Path = FOLDER) -> list[CaughtMail]:
    """Return the mails of a folder, the newest last."""
    return [_read(path) for path in _paths(folder)]


def find_mail(mail_id: str, folder: Path = FOLDER) -> CaughtMail | None:
    """Return a mail. The id is compared with names of files, so it cannot be another path."""
    return next((_read(path) for path in _paths(folder) if path.stem == mail_id), None)


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.eml"), key=lambda path: (path.stat().st_mtime_ns, path))


def _read(path: Path) -> CaughtMail:
    message = message_from_bytes(path.read_bytes(), policy=default)
    assert isinstance(message, EmailMessage)  # the policy's class
    caught_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return CaughtMail(path.stem, caught_at, message)
