"""Pages of a table that has a column of each type that lists are sorted by."""

import base64
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import TIMESTAMP, BigInteger, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column

from app.db.pagination import InvalidCursor, Keyset, fetch_page
from app.db.session import Database, open_database
from app.settings import Settings

START = datetime(2026, 1, 1, tzinfo=UTC)
UNCHANGED = "Send the `next_cursor` of an earlier page, unchanged."


class ModelOfThisTest(DeclarativeBase):
    """A base class with metadata of its own: the service does not have this table."""

    type_annotation_map = {int: BigInteger, datetime: TIMESTAMP(timezone=True)}  # noqa: RUF012 - SQLAlchemy reads it as declared


class Row(ModelOfThisTest):
    __tablename__ = "_test_rows"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    number: Mapped[int]
    price: Mapped[Decimal]
    day: Mapped[date]
    at: Mapped[datetime]
    local: Mapped[datetime] = mapped_column(TIMESTAMP())
    note: Mapped[str | None]


TIMES: list[InstrumentedAttribute[object]] = [Row.day, Row.at, Row.local]
COLUMNS = [Row.name, Row.number, Row.price, *TIMES]
ORDERS = [sign + column.key for column in COLUMNS for sign in ("", "-")]


def values(number: int) -> dict[str, object]:
    """Return the columns of a row. Two rows in a row have the same values, but not the same id."""
    rank = number // 2
    return {
        "id": uuid.UUID(int=number),
        "name": f"é\U0001f600{rank}",
        "number": rank - 2**63,
        "price": Decimal(rank) / 3,
        "day": START.date() + timedelta(days=rank),
        "at": START + timedelta(microseconds=rank),
        "local": START.replace(tzinfo=None) + timedelta(microseconds=rank),
    }


def keyset_of(sort: str) -> Keyset:
    return Keyset(sort, getattr(Row, sort.removeprefix("-")), Row.id)


@pytest.fixture(scope="module")
async def table(database_url: str, settings: Settings) -> AsyncIterator[Database]:
    assert database_url
    async with open_database(settings) as database:
        async with database.session() as session:
            connection = await session.connection()
            await connection.run_sync(ModelOfThisTest.metadata.create_all)
        yield database
        async with database.session() as session:
            connection = await session.connection()
            await connection.run_sync(ModelOfThisTest.metadata.drop_all)


@pytest.fixture
async def session(table: Database) -> AsyncIterator[AsyncSession]:
    """Yield a session with seven rows, whose changes are rolled back."""
    async with table.session() as session:
        await session.execute(insert(Row), [values(number) for number in range(2, 9)])
        yield session
        await session.rollback()


async def numbers(session: AsyncSession, sort: str, cursor: str | None = None) -> list[int]:
    """Read all pages of three rows after the cursor, and return their ids."""
    found: list[int] = []
    while True:
        rows, cursor = await fetch_page(session, select(Row), keyset_of(sort), cursor, 3)
        found += [row.id.int for row in rows]
        if cursor is None:
            return found


@pytest.mark.parametrize("sort", ORDERS)
async def test_pages_have_each_row_once_in_order(session: AsyncSession, sort: str) -> None:
    ascending = [2, 3, 4, 5, 6, 7, 8]
    expected = ascending[::-1] if sort.startswith("-") else ascending
    assert await numbers(session, sort) == expected


@pytest.mark.parametrize("sort", ORDERS)
async def test_added_and_deleted_rows_do_not_shift_the_pages(
    session: AsyncSession, sort: str
) -> None:
    before, after = (9, 1) if sort.startswith("-") else (1, 9)
    first, cursor = await fetch_page(session, select(Row), keyset_of(sort), None, 3)
    await session.execute(insert(Row), [values(before), values(after)])
    # The last row of the page: the cursor has its values, so the row need not exist.
    await session.execute(delete(Row).where(Row.id == first[-1].id))
    expected = sorted({*range(2, 9), after} - {row.id.int for row in first})
    assert sorted(await numbers(session, sort, cursor)) == expected


async def test_page_keeps_the_filters_of_the_statement(session: AsyncSession) -> None:
    statement = select(Row).where(Row.number >= values(6)["number"])
    rows, cursor = await fetch_page(session, statement, keyset_of("number"), None, 2)
    assert ([row.id.int for row in rows], cursor is None) == ([6, 7], False)
    rows, cursor = await fetch_page(session, statement, keyset_of("number"), cursor, 2)
    assert ([row.id.int for row in rows], cursor) == ([8], None)


async def test_page_that_is_exactly_full_is_the_last(session: AsyncSession) -> None:
    rows, cursor = await fetch_page(session, select(Row), keyset_of("at"), None, 7)
    assert (len(rows), cursor) == (7, None)


def encoded(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


ID = str(uuid.UUID(int=1))
FORGED = [
    ("name", "nonsense"),
    ("name", "é"),
    ("name", encoded()),
    ("name", encoded("name", "a")),
    ("name", encoded("name", "a", ID, ID)),
    ("name", encoded("name", 7, ID)),
    ("name", encoded("name", None, ID)),
    ("name", encoded("name", "a\0", ID)),
    ("name", encoded("name", "\ud800", ID)),
    ("name", encoded("name", "a", "7")),
    ("number", encoded("number", "7", ID)),
    ("number", encoded("number", 2**63, ID)),
    ("number", encoded("number", -(2**63) - 1, ID)),
    ("price", encoded("price", "many", ID)),
    ("day", encoded("day", "2026-02-30", ID)),
    ("day", encoded("day", 7, ID)),
    ("at", encoded("at", 7, ID)),
    ("at", encoded("at", "2026-01-01T00:00:00", ID)),
    ("local", encoded("local", "2026-01-01T00:00:00Z", ID)),
    ("at", encoded("at", "0001-01-01T00:00:00+23:59", ID)),
    ("at", encoded("at", "9999-12-31T23:59:59-23:59", ID)),
]


@pytest.mark.parametrize(("sort", "cursor"), FORGED)
def test_forged_cursor_is_refused(sort: str, cursor: str) -> None:
    with pytest.raises(InvalidCursor) as caught:
        keyset_of(sort).decode(cursor)
    assert caught.value.detail == UNCHANGED


def test_cursor_of_another_order_is_refused() -> None:
    cursor = keyset_of("name").encode(Row(**values(1)))
    assert keyset_of("name").decode(cursor) == (values(1)["name"], uuid.UUID(int=1))
    with pytest.raises(InvalidCursor, match="another `sort`"):
        keyset_of("-name").decode(cursor)


def test_column_that_may_be_null_is_refused() -> None:
    """A comparison with NULL is never true, so the pages after the first NULL would be empty."""
    with pytest.raises(ValueError, match=r"Row\.note may be NULL"):
        Keyset("note", Row.note, Row.id)
