"""The routes."""

import re
import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from app.auth.tokens import AccountRequired  # option: auth
from app.cache.read_through import invalidates, read_through  # option: redis
from app.errors import PreconditionFailed, PreconditionRequired
from app.features.bookmarks import service
from app.features.bookmarks.jobs import find_duplicates  # option: worker
from app.features.bookmarks.schemas import Bookmark, BookmarkInput, BookmarkPage
from app.jobs.queue import QueueDep  # option: worker
from app.web.dependencies import Reader, WriteTransaction
from app.web.problems import responses

TAG = {"name": "bookmarks", "description": "Bookmarks of web pages, each page once."}
router = APIRouter(prefix="/bookmarks", tags=[TAG["name"]])

# Required for clients. To FastAPI it is optional: it would answer 422, and the status is 428.
IF_MATCH = {
    "parameters": [
        {
            "name": "If-Match",
            "in": "header",
            "required": True,
            "description": "The ETag of the version that was read.",
            "schema": {"type": "string", "examples": ['"1"']},
        }
    ]
}


class VersionRequired(PreconditionRequired):
    type = "urn:problem:version-required"
    title = "Version Required"


class UnknownVersion(PreconditionFailed):
    type = "urn:problem:unknown-version"
    title = "Unknown Version"


@read_through("bookmark:{bookmark_id}", Bookmark)  # option: redis
async def find_bookmark(bookmark_id: uuid.UUID, database: Reader) -> Bookmark:
    return await service.find(database, bookmark_id)


async def seen_version(
    if_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> int:
    """The version that the client has seen, from `If-Match` (RFC 9110, 13.1.1)."""
    if if_match is None:
        raise VersionRequired("Send If-Match with the ETag you have read.")
    match = re.fullmatch(r'"(\d{1,18})"', if_match.strip())
    if match is None:
        raise UnknownVersion("If-Match is no ETag of this resource.")
    return int(match[1])


FoundBookmark = Annotated[Bookmark, Depends(find_bookmark)]
SeenVersion = Annotated[int, Depends(seen_version)]


def _etag(bookmark: Bookmark) -> str:
    return f'"{bookmark.version}"'


@router.get("")
async def list_bookmarks(
    database: Reader,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> BookmarkPage:
    """Return a page of bookmarks, the newest first."""
    return await service.find_page(database, cursor, limit)


@router.post(
    "",
    status_code=201,
    dependencies=[AccountRequired],  # option: auth
    responses=responses(service.DuplicateBookmark),
)
async def create_bookmark(
    new: BookmarkInput,
    transaction: WriteTransaction,
    queue: QueueDep,  # option: worker
    request: Request,
    response: Response,
) -> Bookmark:
    """Store a bookmark. Its page must not be bookmarked yet."""
    bookmark = await service.create(transaction, new)
    key = str(bookmark.id)  # option: worker
    queue.enqueue(transaction, find_duplicates, key=key, bookmark_id=key)  # option: worker
    response.headers["Location"] = f"{request.scope['root_path']}/bookmarks/{bookmark.id}"
    response.headers["ETag"] = _etag(bookmark)
    return bookmark


@router.get("/{bookmark_id}", responses=responses(service.BookmarkNotFound))
async def read_bookmark(bookmark: FoundBookmark, response: Response) -> Bookmark:
    """Return one bookmark; its `ETag` is what changing it requires."""
    response.headers["ETag"] = _etag(bookmark)
    return bookmark


@router.put(
    "/{bookmark_id}",
    dependencies=[AccountRequired],  # option: auth
    responses=responses(
        service.BookmarkNotFound,
        service.DuplicateBookmark,
        service.BookmarkChanged,
        VersionRequired,
    ),
    openapi_extra=IF_MATCH,
)
@invalidates("bookmark:{bookmark_id}")  # option: redis
async def replace_bookmark(
    bookmark_id: uuid.UUID,
    new: BookmarkInput,
    version: SeenVersion,
    transaction: WriteTransaction,
    response: Response,
) -> Bookmark:
    """Replace the content of a bookmark, if it is still the version that was read."""
    bookmark = await service.replace(transaction, bookmark_id, version, new)
    response.headers["ETag"] = _etag(bookmark)
    return bookmark


@router.delete(
    "/{bookmark_id}",
    status_code=204,
    dependencies=[AccountRequired],  # option: auth
    responses=responses(service.BookmarkNotFound, service.BookmarkChanged, VersionRequired),
    openapi_extra=IF_MATCH,
)
@invalidates("bookmark:{bookmark_id}")  # option: redis
async def delete_bookmark(
    bookmark_id: uuid.UUID, version: SeenVersion, transaction: WriteTransaction
) -> None:
    """Delete a bookmark, if it is still the version that was read."""
    await service.remove(transaction, bookmark_id, version)
