"""The rules: all embeddings have as many numbers as the column, and the nearest come first."""

import uuid
from collections.abc import Sequence

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.dialects.postgresql import insert

from app.db.database import Database, Transaction
from app.errors import NotFound, Unprocessable
from app.features.passages.models import PassageModel as Row
from app.features.passages.schemas import Neighbour, Neighbours, Passage, PassageInput, Query

_COLUMNS = (Row.id, Row.text, Row.created_at)
_CREATE = insert(Row).returning(*_COLUMNS)
_FIND = select(*_COLUMNS).where(Row.id == bindparam("id"))
_DELETE = delete(Row).where(Row.id == bindparam("of_id")).returning(Row.id)
_DISTANCE = Row.embedding.cosine_distance(bindparam("embedding", type_=Row.embedding.type))
NEAREST = (
    select(*_COLUMNS, _DISTANCE.label("distance")).order_by(_DISTANCE).limit(bindparam("limit"))
)
# atttypmod of a vector is its number of dimensions.
_COLUMN_DIMENSIONS = text(
    "SELECT atttypmod FROM pg_attribute "
    "WHERE attrelid = to_regclass('passages') AND attname = 'embedding'"
)


class PassageNotFound(NotFound):
    type = "urn:problem:passage-not-found"
    title = "Passage Not Found"


class WrongDimensions(Unprocessable):
    type = "urn:problem:wrong-dimensions"
    title = "Wrong Dimensions"


class DimensionsMismatch(Exception):
    """The column holds embeddings of another size than EMBEDDING_DIMENSIONS says."""


async def check_column(database: Database, dimensions: int) -> None:
    """For readiness and `app check`.

    Raises:
        DimensionsMismatch: it would refuse every embedding that we let in.
    """
    async with database.probe() as connection:
        of_column = await connection.scalar(_COLUMN_DIMENSIONS)
    if of_column != dimensions:
        raise DimensionsMismatch(
            f"EMBEDDING_DIMENSIONS is {dimensions}, and the column passages.embedding has "
            f"{of_column or 'not been made'}: see docs/passages.md"
        )


async def create(transaction: Transaction, new: PassageInput, dimensions: int) -> Passage:
    _check_size(new.embedding, dimensions)
    rows = await transaction.fetch(_CREATE, {"text": new.text, "embedding": new.embedding})
    return Passage.model_validate(rows[0])


async def find(database: Database, passage_id: uuid.UUID) -> Passage:
    rows = await database.fetch(_FIND, {"id": passage_id})
    if not rows:
        raise PassageNotFound
    return Passage.model_validate(rows[0])


async def find_nearest(database: Database, query: Query, dimensions: int) -> Neighbours:
    """The passages whose embeddings point most nearly the same way.

    Args:
        database: to read from.
        query: an embedding, and how many passages at most.
        dimensions: numbers that an embedding has here.

    Raises:
        WrongDimensions: the embedding has more or fewer.
    """
    _check_size(query.embedding, dimensions)
    rows = await database.fetch(NEAREST, {"embedding": query.embedding, "limit": query.limit})
    return Neighbours(items=[Neighbour.model_validate(row) for row in rows])


async def remove(transaction: Transaction, passage_id: uuid.UUID) -> None:
    if not await transaction.fetch(_DELETE, {"of_id": passage_id}):
        raise PassageNotFound


def _check_size(embedding: Sequence[float], dimensions: int) -> None:
    if len(embedding) != dimensions:
        raise WrongDimensions(
            f"An embedding has {dimensions} numbers here, and this one has {len(embedding)}."
        )
