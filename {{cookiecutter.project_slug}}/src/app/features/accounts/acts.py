"""The audit log: each act is a row of `administrative_acts` and a line of the log."""

import uuid
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import after_commit
from app.features.accounts.models import Act, AdministrativeAct

log = structlog.get_logger()


def record(
    session: AsyncSession,
    message: str,
    actor_id: uuid.UUID | None,
    act: Act,
    target_id: uuid.UUID,
    *,
    role: str | None = None,
    provider: str | None = None,
) -> None:
    """Store an act in the transaction, and log it after the commit.

    Args:
        session: the transaction.
        message: the event of the log line.
        actor_id: an account, or None for the command line.
        act: the kind of act.
        target_id: the account that is changed.
        role: that is granted or revoked.
        provider: that is linked or unlinked.
    """
    session.add(
        AdministrativeAct(
            actor_id=actor_id, act=act, target_id=target_id, role=role, provider=provider
        )
    )
    fields: dict[str, Any] = {"act": act.value, "target_id": str(target_id)}
    fields["actor_id"] = str(actor_id) if actor_id else "command line"
    fields |= {"provider": provider} if provider else {"role": role}

    async def log_act() -> None:
        log.info(message, **fields)

    after_commit(session, log_act)
