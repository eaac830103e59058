"""Pages of a sorted list. A page begins after the last row of the previous page, not at an offset.

So rows that are added or deleted meanwhile do not shift the pages. The cursor for the next page is
a text for clients: the name of the order, and two values of the last row.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, Field, NaiveDatetime, TypeAdapter
from sqlalchemy import DateTime, Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute

from app.errors import InvalidInput

M = TypeVar("M", bound=DeclarativeBase)

# The longest value that an index of PostgreSQL can hold has 2,704 bytes.
Cursor = Annotated[
    str | None, Field(max_length=4000, description="`next_cursor` of the previous page.")
]
NextCursor = Annotated[
    str | None, Field(description="Send it as `cursor` for the next page, if any.")
]
BIGINT = range(-(2**63), 2**63)


class InvalidCursor(InvalidInput):
    """The cursor is malformed, or belongs to another order."""


@dataclass(frozen=True)
class Keyset:
    """The order of a list. An index on both columns makes every page equally fast.

    Attributes:
        sort: the name of the order for clients. A minus sign means descending.
        column: rows are sorted by it: a text, number, date or time that is NOT NULL.
        unique: decides between rows with equal values, for example the primary key.
    """

    sort: str
    column: InstrumentedAttribute[Any]
    unique: InstrumentedAttribute[Any]

    def __post_init__(self) -> None:
        for column in (self.column, self.unique):
            if column.nullable:
                raise ValueError(f"{column} may be NULL: sort by a column that is NOT NULL")

    def encode(self, last: DeclarativeBase) -> str:
        """Return the cursor for the rows after this one."""
        values = (self.sort, getattr(last, self.column.key), getattr(last, self.unique.key))
        return base64.urlsafe_b64encode(self._adapter().dump_json(values)).decode()

    def decode(self, cursor: str) -> tuple[Any, Any]:
        """Return the values of both columns in the last row of the previous page.

        Raises:
            InvalidCursor: `encode` did not return it, or it belongs to another order.
        """
        try:
            content = base64.urlsafe_b64decode(cursor)
            sort, *values = self._adapter().validate_json(content, strict=True)
            if sort != self.sort:
                raise InvalidCursor("The cursor belongs to a list with another `sort`.")
            value, unique = map(_storable, values)
        except (ValueError, OverflowError) as error:
            message = "Send the `next_cursor` of an earlier page, unchanged."
            raise InvalidCursor(message) from error
        return value, unique

    def _adapter(self) -> TypeAdapter[tuple[str, Any, Any]]:
        return _adapter_of(_python_type(self.column), _python_type(self.unique))


def _python_type(column: InstrumentedAttribute[Any]) -> Any:
    if isinstance(column.type, DateTime):
        return AwareDatetime if column.type.timezone else NaiveDatetime
    return column.type.python_type


@cache
def _adapter_of(value: Any, unique: Any) -> TypeAdapter[tuple[str, Any, Any]]:
    return TypeAdapter(tuple[str, value, unique])


def _storable(value: object) -> object:
    """Return a value of a cursor for PostgreSQL.

    Raises:
        ValueError, OverflowError: PostgreSQL cannot store it.
    """
    if isinstance(value, str) and "\x00" in value:
        raise ValueError("PostgreSQL cannot store NUL")
    if isinstance(value, int) and value not in BIGINT:
        raise OverflowError("the number has more than 64 bits")
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    return value


async def fetch_page(
    session: AsyncSession, statement: Select[M], keyset: Keyset, cursor: str | None, limit: int
) -> tuple[Sequence[M], str | None]:
    """Return the rows of one page, and the cursor for the next page, if any.

    Args:
        session: runs the statement.
        statement: selects one model, with all filters, without an order and without a limit.
        keyset: the order.
        cursor: of the previous page; None for the first page.
        limit: the maximum number of rows.

    Raises:
        InvalidCursor: the cursor is malformed, or belongs to another order.
    """
    column, unique = keyset.column, keyset.unique
    is_descending = keyset.sort.startswith("-")
    if cursor is not None:
        position, last = tuple_(column, unique), keyset.decode(cursor)
        statement = statement.where(position < last if is_descending else position > last)
    order = (column.desc(), unique.desc()) if is_descending else (column, unique)
    # There is a next page if the query finds one row more than the limit.
    found = (await session.scalars(statement.order_by(*order).limit(limit + 1))).all()
    rows = found[:limit]
    return rows, keyset.encode(rows[-1]) if len(found) > limit else None
