"""The mails that a service would send."""

import re
from email.message import EmailMessage

from app.db.session import open_database
from app.mail.sender import MailSender
from app.settings import Settings

LINK = re.compile(r"#action=(?P<action>[a-z-]+)&token=(?P<token>[\w-]+)")


class Mailbox:
    """A transport that keeps mails."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def send(self, message: EmailMessage) -> None:
        self.mails.append(message)


async def send_due_mails(settings: Settings) -> list[EmailMessage]:
    """Send the mails that are due, and return them."""
    mailbox = Mailbox()
    sender = MailSender(settings, mailbox)
    async with open_database(settings) as database:
        while await sender.send_next(database):
            pass
    return mailbox.mails


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(["plain"])
    assert body is not None
    return str(body.get_content())


def token_of(mail: EmailMessage, action: str) -> str:
    """Return the token of the link of a mail, which has this action."""
    found = LINK.search(text_of(mail))
    assert found is not None
    assert found["action"] == action
    return found["token"]
