"""The rules: every embedding has the dimensions of the column, and a search returns the nearest."""

import uuid
from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db.session import Database
from app.features.passages.errors import PassageNotFound, WrongDimensions
from app.features.passages.models import Passage
from app.features.passages.schemas import (
    NearestQuery,
    Neighbour,
    Neighbours,
    PassageInput,
    PassageRead,
)

_COLUMNS = (Passage.id, Passage.text, Passage.created_at)
_FIND = select(*_COLUMNS).where(Passage.id == bindparam("id"))
_DISTANCE = Passage.embedding.cosine_distance(bindparam("embedding", type_=Passage.embedding.type))
NEAREST = (
    select(*_COLUMNS, _DISTANCE.label("distance")).order_by(_DISTANCE).limit(bindparam("limit"))
)
# atttypmod of a vector is its number of dimensions.
_COLUMN_DIMENSIONS = text(
    "SELECT atttypmod FROM pg_attribute "
    "WHERE attrelid = to_regclass('passages') AND attname = 'embedding'"
)


class DimensionsMismatch(Exception):
    """The column has other dimensions than EMBEDDING_DIMENSIONS."""


async def check_column(database: Database, dimensions: int) -> None:
    """Check the setting against the column, for readiness and `app check`.

    Raises:
        DimensionsMismatch: the column would refuse every embedding that the service accepts.
    """
    async with database.probe() as connection:
        of_column = await connection.scalar(_COLUMN_DIMENSIONS)
    if of_column != dimensions:
        actual = f"has {of_column} dimensions" if of_column else "does not exist"
        raise DimensionsMismatch(
            f"EMBEDDING_DIMENSIONS is {dimensions}, but the column passages.embedding {actual}: "
            "see docs/passages.md"
        )


async def create(session: AsyncSession, new: PassageInput, dimensions: int) -> PassageRead:
    """Store a passage.

    Raises:
        WrongDimensions: the embedding has another number of dimensions.
    """
    _check_dimensions(new.embedding, dimensions)
    passage = Passage(text=new.text, embedding=new.embedding)
    session.add(passage)
    await session.flush()
    return PassageRead.model_validate(passage)


async def find(connection: AsyncConnection, passage_id: uuid.UUID) -> PassageRead:
    """Return a passage.

    Raises:
        PassageNotFound: no passage has this id.
    """
    row = (await connection.execute(_FIND, {"id": passage_id})).mappings().one_or_none()
    if row is None:
        raise PassageNotFound
    return PassageRead.model_validate(row)


async def find_nearest(
    connection: AsyncConnection, query: NearestQuery, dimensions: int
) -> Neighbours:
    """Return the passages with the smallest cosine distance, the nearest first.

    Args:
        connection: to read from.
        query: an embedding, and the maximum number of passages.
        dimensions: the dimensions of the column.

    Raises:
        WrongDimensions: the embedding has another number of dimensions.
    """
    _check_dimensions(query.embedding, dimensions)
    parameters = {"embedding": query.embedding, "limit": query.limit}
    rows = (await connection.execute(NEAREST, parameters)).mappings()
    return Neighbours(items=[Neighbour.model_validate(row) for row in rows])


async def remove(session: AsyncSession, passage_id: uuid.UUID) -> None:
    """Delete a passage.

    Raises:
        PassageNotFound: no passage has this id.
    """
    statement = delete(Passage).where(Passage.id == passage_id).returning(Passage.id)
    if await session.scalar(statement) is None:
        raise PassageNotFound


def _check_dimensions(embedding: Sequence[float], dimensions: int) -> None:
    if len(embedding) != dimensions:
        raise WrongDimensions(
            f"An embedding has {dimensions} numbers here, and this one has {len(embedding)}."
        )
