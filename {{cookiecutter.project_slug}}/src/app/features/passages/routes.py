"""The routes of passages."""

import uuid
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response

from app.auth.dependencies import AccountRequired  # option: auth
from app.db.session import Database
from app.features.passages import service
from app.features.passages.errors import PassageNotFound, WrongDimensions
from app.features.passages.schemas import NearestQuery, Neighbours, PassageInput, PassageRead
from app.features.passages.settings import PassageSettings
from app.web.checks import Check
from app.web.dependencies import ReadConnection, Session, from_state
from app.web.problems import responses

TAG = {"name": "passages", "description": "Text, found by its embedding."}
router = APIRouter(prefix="/passages", tags=[TAG["name"]])
DimensionsDep = Annotated[int, from_state("embedding_dimensions")]


@router.post(
    "",
    status_code=201,
    dependencies=[AccountRequired],  # option: auth
    responses=responses(WrongDimensions),
)
async def create_passage(
    new: PassageInput,
    dimensions: DimensionsDep,
    session: Session,
    request: Request,
    response: Response,
) -> PassageRead:
    """Store a passage with its embedding."""
    passage = await service.create(session, new, dimensions)
    response.headers["Location"] = f"{request.scope['root_path']}/passages/{passage.id}"
    return passage


@router.post("/nearest", responses=responses(WrongDimensions))
async def find_nearest_passages(
    query: NearestQuery, dimensions: DimensionsDep, connection: ReadConnection
) -> Neighbours:
    """Return the passages nearest to an embedding. A POST, since it is too long for a URL."""
    return await service.find_nearest(connection, query, dimensions)


@router.get("/{passage_id}", responses=responses(PassageNotFound))
async def read_passage(passage_id: uuid.UUID, connection: ReadConnection) -> PassageRead:
    """Return one passage, without its embedding."""
    return await service.find(connection, passage_id)


@router.delete(
    "/{passage_id}",
    status_code=204,
    dependencies=[AccountRequired],  # option: auth
    responses=responses(PassageNotFound),
)
async def delete_passage(passage_id: uuid.UUID, session: Session) -> None:
    """Delete a passage."""
    await service.remove(session, passage_id)


def create_state(
    settings: PassageSettings, database: Database, add_check: Callable[[Check], None]
) -> dict[str, Any]:
    """Return the objects that the dependencies of passages need.

    Args:
        settings: the dimensions of embeddings.
        database: has the column.
        add_check: called with a check of the setting against the column.
    """
    dimensions = settings.embedding_dimensions
    add_check(Check("embeddings", partial(service.check_column, database, dimensions)))
    return {"embedding_dimensions": dimensions}
