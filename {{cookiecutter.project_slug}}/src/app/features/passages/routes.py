"""The routes."""

import uuid
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from app.auth.tokens import AccountRequired  # option: auth
from app.db.database import Database
from app.features.passages import service
from app.features.passages.schemas import Neighbours, Passage, PassageInput, Query
from app.settings import Settings
from app.web.dependencies import Reader, WriteTransaction
from app.web.health import Check
from app.web.problems import responses
from app.web.routing import include

TAG = {"name": "passages", "description": "Text, found by its embedding."}
router = APIRouter(prefix="/passages", tags=[TAG["name"]])


async def get_dimensions(request: Request) -> int:
    dimensions: int = request.app.state.embedding_dimensions
    return dimensions


Dimensions = Annotated[int, Depends(get_dimensions)]


@router.post(
    "",
    status_code=201,
    dependencies=[AccountRequired],  # option: auth
    responses=responses(service.WrongDimensions),
)
async def create_passage(
    new: PassageInput,
    dimensions: Dimensions,
    transaction: WriteTransaction,
    request: Request,
    response: Response,
) -> Passage:
    """Store a passage with its embedding."""
    passage = await service.create(transaction, new, dimensions)
    response.headers["Location"] = f"{request.scope['root_path']}/passages/{passage.id}"
    return passage


@router.post("/nearest", responses=responses(service.WrongDimensions))
async def find_nearest_passages(
    query: Query, dimensions: Dimensions, database: Reader
) -> Neighbours:
    """Return the passages nearest to an embedding; a POST, since it is too long for a URL."""
    return await service.find_nearest(database, query, dimensions)


@router.get("/{passage_id}", responses=responses(service.PassageNotFound))
async def read_passage(passage_id: uuid.UUID, database: Reader) -> Passage:
    """Return one passage, without its embedding."""
    return await service.find(database, passage_id)


@router.delete(
    "/{passage_id}",
    status_code=204,
    dependencies=[AccountRequired],  # option: auth
    responses=responses(service.PassageNotFound),
)
async def delete_passage(passage_id: uuid.UUID, transaction: WriteTransaction) -> None:
    """Delete a passage."""
    await service.remove(transaction, passage_id)


def install_passages(app: FastAPI, settings: Settings) -> None:
    app.state.embedding_dimensions = settings.embedding_dimensions
    include(app, router)


def column_check(database: Database, settings: Settings) -> Check:
    """Whether the column fits the setting: a replica that would fail gets no requests."""
    check = partial(service.check_column, database, settings.embedding_dimensions)
    return Check("embeddings", check)
