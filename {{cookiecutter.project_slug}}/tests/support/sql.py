"""Statements in tests."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Executable, RowMapping
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database


async def fetch(
    source: Database | AsyncSession,
    statement: Executable,
    parameters: Mapping[str, Any] | None = None,
) -> Sequence[RowMapping]:
    """Run a statement in a session or on a read connection, and return the rows."""
    if isinstance(source, AsyncSession):
        return (await source.execute(statement, parameters)).mappings().all()
    async with source.read_connection() as connection:
        return (await connection.execute(statement, parameters)).mappings().all()
