"""The jobs of an account."""

import uuid
from typing import Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.jobs.models import JobRecord

_OF_ACCOUNT = JobRecord.owner_id == bindparam("account_id")
_EXPORT = (
    select(JobRecord.id, JobRecord.name, JobRecord.status, JobRecord.arguments)
    .add_columns(JobRecord.result, JobRecord.created_at)
    .where(_OF_ACCOUNT)
    .order_by(JobRecord.created_at)
)
_DELETE = delete(JobRecord).where(_OF_ACCOUNT)


async def export_personal_data(
    connection: AsyncConnection, account_id: uuid.UUID
) -> list[dict[str, Any]]:
    """Return the jobs of an account."""
    rows = (await connection.execute(_EXPORT, {"account_id": account_id})).mappings()
    return [dict(row) for row in rows]


async def delete_personal_data(session: AsyncSession, account_id: uuid.UUID) -> None:
    """Delete the jobs of an account, also those that have not run."""
    await session.execute(_DELETE, {"account_id": account_id})
