"""Store mails, in the transaction that they belong to.

A transaction that is rolled back sends none, and a committed mail is not lost.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.mail import background
from app.mail.definition import Mail
from app.mail.jobs import open_worker_sender  # option: worker
from app.mail.models import MailRecord
from app.mail.settings import MailSettings

_STORE = insert(MailRecord).returning(MailRecord.id)

OpenSender = Callable[
    [MailSettings, Database], AbstractAsyncContextManager[background.SendOnCommit]
]
open_sender: OpenSender = background.open_background_sender
open_sender = open_worker_sender  # option: worker


class Outbox:
    """Stores mails, and starts their sender after the commit."""

    def __init__(self, send_on_commit: background.SendOnCommit) -> None:
        self._send_on_commit = send_on_commit

    async def send(
        self,
        session: AsyncSession,
        mail: Mail,
        /,
        *,
        languages: str | None = None,
        **arguments: Any,
    ) -> None:
        """Store a mail in the session's transaction. It is sent after the commit.

        Args:
            session: the transaction.
            mail: the mail.
            languages: the header Accept-Language of the request.
            arguments: the arguments of the mail, stored as JSON.

        Raises:
            TypeError: the mail does not have these arguments.
        """
        mail.check_arguments(arguments)
        values = {"name": mail.name, "arguments": arguments, "languages": languages}
        mail_id = (await session.execute(_STORE, values)).scalar_one()
        await self._send_on_commit(session, str(mail_id))


@asynccontextmanager
async def open_outbox(settings: MailSettings, database: Database) -> AsyncIterator[Outbox]:
    async with open_sender(settings, database) as send_on_commit:
        yield Outbox(send_on_commit)
