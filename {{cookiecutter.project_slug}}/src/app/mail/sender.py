"""Send the stored mails, each until it is sent, refused or has failed for good.

An attempt postpones the mail before it sends it, so another process repeats the attempt of a
process that was killed. No transaction and no connection is open while the server is waited for.
A mail can be sent twice, with the same Message-ID, if a process ends directly after sending it.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from aiosmtplib import (
    SMTPException,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
)
from sqlalchemy import Executable, Row, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import INTERVAL

from app.db.session import Database
from app.mail.definition import find_mails
from app.mail.models import MailRecord
from app.mail.settings import MailSettings
from app.mail.templates import Templates
from app.mail.transport import Transport, create_transport

log = structlog.get_logger()

SEND_SECONDS = 45  # longest attempt
LEASE = timedelta(minutes=1)  # then another process repeats an attempt without a result
FIRST_PAUSE = timedelta(seconds=30)  # after a failure; each further pause is twice as long
MAX_ATTEMPTS = 12  # in 17 hours
RETENTION = timedelta(days=30)  # of mails that have failed for good
UNREACHABLE = ".invalid"  # RFC 2606: no such domain exists; the smoke test registers in one
PERMANENT = 500  # SMTP codes from here on

_NEXT = (
    select(MailRecord.id)
    .where(MailRecord.due_at <= func.now())
    .order_by(MailRecord.due_at)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_CLAIM = (
    update(MailRecord)
    .where(MailRecord.id == _NEXT)
    .values(attempts=MailRecord.attempts + 1, due_at=func.now() + LEASE)
    .returning(
        *(MailRecord.id, MailRecord.name, MailRecord.arguments),
        *(MailRecord.languages, MailRecord.attempts),
    )
)
_DELETE = delete(MailRecord).where(MailRecord.id == bindparam("mail_id"))
_POSTPONE = (
    update(MailRecord)
    .where(MailRecord.id == bindparam("mail_id"))
    # A mail that has failed for good has no pause.
    .values(due_at=func.now() + bindparam("pause", type_=INTERVAL))
)
_DELETE_FAILED = delete(MailRecord).where(
    MailRecord.due_at.is_(None), MailRecord.created_at < func.now() - RETENTION
)


class MailSender:
    """Sends stored mails with the transport of the settings, or with a given one."""

    def __init__(self, settings: MailSettings, transport: Transport | None = None) -> None:
        self._transport = transport or create_transport(settings)
        self._templates = Templates(settings)
        self._mails = find_mails()

    async def send_next(self, database: Database) -> bool:
        """Send the mail that has been due for longest.

        Returns:
            Whether there was one.

        Raises:
            Unavailable: the database cannot be reached.
        """
        if self._transport is None:
            return False
        async with database.read_connection() as connection:
            record = (await connection.execute(_CLAIM)).one_or_none()
        if record is None:
            return False
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(database, self._transport, record)
        except (SMTPException, OSError) as error:
            # The text of an SMTP error has the address, so the log has the codes only.
            refused = [one.code for one in _refused_recipients(error)]
            codes = [error.code] if isinstance(error, SMTPResponseException) else refused
            is_refused = bool(refused) and min(refused) >= PERMANENT
            reason = type(error).__name__
            await _end_attempt(database, record, reason, codes=codes, is_refused=is_refused)
        except Exception as error:  # a feature composes it, and may raise any error
            log.exception("mail not composed", mail=record.name, mail_id=str(record.id))
            await _end_attempt(database, record, type(error).__name__)
        else:
            await _execute(database, _DELETE, mail_id=record.id)
        return True

    async def delete_failed(self, database: Database) -> None:
        """Delete mails that failed for good and are older than the retention."""
        await _execute(database, _DELETE_FAILED)

    async def _send(self, database: Database, transport: Transport, record: Row[Any]) -> None:
        mail = self._mails[record.name]
        async with database.session() as session:
            message = await mail.compose(session, **record.arguments)
        if message is not None and not message.to.endswith(UNREACHABLE):
            mail_id = str(record.id)
            await transport.send(
                self._templates.render(record.name, mail_id, record.languages, message)
            )


def _refused_recipients(error: Exception) -> list[SMTPRecipientRefused]:
    """Return the refusals of the recipient.

    Those of the log-in, the sender or the content have a cause that the operator can remove. Mail
    providers refuse a sender that is not confirmed only after the content.
    """
    return error.recipients if isinstance(error, SMTPRecipientsRefused) else []


async def _end_attempt(
    database: Database,
    record: Row[Any],
    reason: str,
    *,
    codes: Sequence[int] = (),
    is_refused: bool = False,
) -> None:
    """Log a failed attempt, and schedule the next one if there is one."""
    fields = {"mail": record.name, "mail_id": str(record.id), "attempt": record.attempts}
    fields |= {"reason": reason, "codes": list(codes)}
    if is_refused:
        log.warning("mail refused", **fields)
        await _execute(database, _DELETE, mail_id=record.id)
    elif record.attempts >= MAX_ATTEMPTS:
        log.error("mail failed", **fields)
        await _execute(database, _POSTPONE, mail_id=record.id, pause=None)
    else:
        log.warning("mail will be retried", **fields)
        pause = FIRST_PAUSE * 2 ** (record.attempts - 1)
        await _execute(database, _POSTPONE, mail_id=record.id, pause=pause)


async def _execute(database: Database, statement: Executable, **values: object) -> None:
    async with database.read_connection() as connection:
        await connection.execute(statement, values)
