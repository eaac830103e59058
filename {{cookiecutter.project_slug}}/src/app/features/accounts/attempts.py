"""Limits of attempts to guess a secret, and of mails, counted in PostgreSQL for all replicas.

Each subject, such as an account, has a bucket (GCRA, ITU-T I.371): `burst` attempts pass at once,
then one in each `interval`. The next attempt is never further away than one interval, so attackers
lock no owner out for good. NIST SP 800-63B-4, 3.2.2, limits consecutive failures to 100, and
OWASP's Authentication Cheat Sheet warns that a lockout lets attackers deny the log-in. Meanwhile
sessions continue, and a new password from a link in a mail empties the bucket of the account.

An attempt is counted before its secret is checked, and refunded if the secret is right. So parallel
guesses cannot exceed a limit.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import Any

from sqlalchemy import CTE, bindparam, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import INTERVAL, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.features.accounts import errors
from app.features.accounts.models import Attempt


@dataclass(frozen=True)
class Limit:
    """A number of attempts, and the time in which one of them is regained."""

    name: str
    burst: int
    interval: timedelta

    def of(self, subject: object) -> "Subject":
        return Subject(self, hashlib.sha256(f"{self.name} {subject}".encode()).digest())


@dataclass(frozen=True)
class Subject:
    """The object of attempts. The table has its digest, so it stores no address."""

    limit: Limit
    digest: bytes

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of statements, with the name of the limit as their prefix."""
        name, interval = self.limit.name, self.limit.interval
        tolerance = interval * (self.limit.burst - 1)
        return {
            f"{name}_digest": self.digest,
            f"{name}_interval": interval,
            f"{name}_tolerance": tolerance,
        }


# About 100 guesses a day for an account: each password has at least 15 characters.
ACCOUNT = Limit("account", 10, timedelta(minutes=15))  # log-ins with one e-mail address
PASSWORD = Limit("password", 10, timedelta(minutes=15))  # current passwords, with an access token
CLIENT = Limit("client", 100, timedelta(seconds=36))  # of one IP address, which many may share
MAIL = Limit("mail", 5, timedelta(minutes=15))  # links to one e-mail address that confirm it
# Only links for a new password count, so no other mail delays them. A link is valid for 30 minutes,
# so a valid one has arrived if the next is refused.
RESET = Limit("reset", 5, timedelta(minutes=15))  # links for a new password, to one e-mail address

LIMITS = (ACCOUNT, CLIENT, MAIL, PASSWORD, RESET)
MAX_DELETED = 100


def count_in(limit: Limit, *, after: CTE | None = None) -> CTE:
    """Return a part of a statement that counts an attempt. It has a row unless it is refused.

    Args:
        limit: its subject has the parameters.
        after: another one, which must not be refused.
    """
    new = select(
        bindparam(f"{limit.name}_digest", type_=Attempt.digest.type),
        func.now() + bindparam(f"{limit.name}_interval", type_=INTERVAL),
    )
    if after is not None:
        new = new.where(exists(select(after.c.digest)))
    counted = insert(Attempt).from_select(["digest", "ends_at"], new)
    ends_at = func.greatest(Attempt.ends_at, func.now())
    counted = counted.on_conflict_do_update(
        index_elements=[Attempt.digest],
        set_={"ends_at": ends_at + bindparam(f"{limit.name}_interval", type_=INTERVAL)},
        where=Attempt.ends_at <= func.now() + bindparam(f"{limit.name}_tolerance", type_=INTERVAL),
    )
    return counted.returning(Attempt.digest).cte(f"counted_{limit.name}")


def refund_in(limit: Limit) -> CTE:
    """Return a part of a statement that takes back one attempt."""
    refunded = (
        update(Attempt)
        .where(Attempt.digest == bindparam(f"{limit.name}_digest"))
        .values(ends_at=Attempt.ends_at - bindparam(f"{limit.name}_interval", type_=INTERVAL))
    )
    return refunded.returning(Attempt.digest).cte(f"refunded_{limit.name}")


_COUNT = {limit: select(count_in(limit).c.digest) for limit in LIMITS}
_REFUND_CLIENT = select(refund_in(CLIENT).c.digest)
# Rows are locked in the order client, account, so that requests cannot wait for each other.
_REFUNDED = refund_in(CLIENT)
_AFTER_REFUND = select(func.count(_REFUNDED.c.digest)).scalar_subquery() >= 0
_ENDED = (
    select(Attempt.digest)
    .where(_AFTER_REFUND, Attempt.ends_at < func.now())
    .limit(MAX_DELETED)
    .with_for_update(skip_locked=True)
)
_DELETE_ENDED = delete(Attempt).where(Attempt.digest.in_(_ENDED)).returning(Attempt.digest)
_SUCCEED = (
    delete(Attempt)
    .where(_AFTER_REFUND, Attempt.digest == bindparam("account_digest"))
    .add_cte(_DELETE_ENDED.cte("ended"))
)
_CLEAR = delete(Attempt).where(Attempt.digest == bindparam("cleared"))
_WAIT = select(func.extract("epoch", Attempt.ends_at - func.now())).where(
    Attempt.digest == bindparam("refused")
)


async def count(connection: AsyncConnection | AsyncSession, subject: Subject) -> None:
    """Count an attempt.

    Raises:
        TooManyAttempts: the subject has no attempt left.
    """
    counted = await connection.execute(_COUNT[subject.limit], subject.values)
    if counted.one_or_none() is None:
        await refuse(connection, subject)


async def refuse(connection: AsyncConnection | AsyncSession, *subjects: Subject) -> None:
    """Raise the error of subjects that have no attempt left.

    Raises:
        TooManyAttempts: with the time until the next attempt.
    """
    wait_seconds = 1.0
    for subject in subjects:
        left = await connection.scalar(_WAIT, {"refused": subject.digest})
        tolerance = subject.values[f"{subject.limit.name}_tolerance"].total_seconds()
        wait_seconds = max(wait_seconds, float(left or 0) - tolerance)
    raise errors.TooManyAttempts(ceil(wait_seconds))


async def refund(connection: AsyncConnection, client: Subject) -> None:
    """Take back the attempt of a client: it was no guess."""
    await connection.execute(_REFUND_CLIENT, client.values)


async def succeed(session: AsyncSession, client: Subject, account: Subject) -> None:
    """Delete the failures of an account, and take back the attempt of the client.

    The statement also deletes rows that have no effect any more.
    """
    await session.execute(_SUCCEED, client.values | account.values)


async def clear(session: AsyncConnection | AsyncSession, subject: Subject) -> None:
    """Delete the attempts of a subject."""
    await session.execute(_CLEAR, {"cleared": subject.digest})
