"""The routes of bookmarks."""

import re
import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from app.auth.dependencies import AccountRequired  # option: auth
from app.cache.dependencies import CacheDep  # option: redis
from app.db.pagination import InvalidCursor
from app.features.bookmarks import (
    errors,
    imports,  # option: worker
    service,
)
from app.features.bookmarks.schemas import BookmarkInput, BookmarkPage, BookmarkQuery, BookmarkRead
from app.web.dependencies import DatabaseDep, ReadSession, Session
from app.web.problems import Problem, responses

TAG = {"name": "bookmarks", "description": "Bookmarks of web pages, each page once."}
router = APIRouter(prefix="/bookmarks", tags=[TAG["name"]])
router.include_router(imports.router)  # option: worker
# The OpenAPI document says that the header is required. If the parameter were required,
# FastAPI would respond to a missing header with 422 instead of 428.
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The ETag of the version that was read.",
    "schema": {"type": "string", "examples": ['"1"']},
}


class VersionRequired(Problem):
    status = 428


class UnknownVersion(Problem):
    status = 412


async def read_if_match(
    if_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> int:
    """Return the version in `If-Match` (RFC 9110, 13.1.1).

    The header must be one strong ETag. A list and `*` are not supported.

    Raises:
        VersionRequired: the header is missing.
        UnknownVersion: the header is not an ETag of this resource.
    """
    if if_match is None:
        raise VersionRequired("Send If-Match with the ETag you have read.")
    match = re.fullmatch(r'"(\d{1,18})"', if_match.strip())
    if match is None:
        raise UnknownVersion("Send If-Match with the ETag you have read, unchanged.")
    return int(match[1])


IfMatch = Annotated[int, Depends(read_if_match)]
CHANGE_ERRORS = (errors.BookmarkNotFound, errors.BookmarkChanged, UnknownVersion, VersionRequired)


def _set_etag(response: Response, bookmark: BookmarkRead) -> None:
    response.headers["ETag"] = f'"{bookmark.version}"'


@router.get("", responses=responses(InvalidCursor))
async def list_bookmarks(
    session: ReadSession, query: Annotated[BookmarkQuery, Query()]
) -> BookmarkPage:
    """Return a page of bookmarks, by default the newest first."""
    return await service.find_page(session, query)


@router.post(
    "",
    status_code=201,
    dependencies=[AccountRequired],  # option: auth
    responses=responses(errors.DuplicateBookmark),
)
async def create_bookmark(
    new: BookmarkInput,
    session: Session,
    request: Request,
    response: Response,
) -> BookmarkRead:
    """Store a bookmark. Its page must not be bookmarked yet."""
    bookmark = await service.create(session, new)
    response.headers["Location"] = f"{request.scope['root_path']}/bookmarks/{bookmark.id}"
    _set_etag(response, bookmark)
    return bookmark


@router.get("/{bookmark_id}", responses=responses(errors.BookmarkNotFound))
async def read_bookmark(
    bookmark_id: uuid.UUID,
    database: DatabaseDep,
    cache: CacheDep,  # option: redis
    response: Response,
) -> BookmarkRead:
    """Return one bookmark. Changing it requires its `ETag`."""
    bookmark = await service.find(
        database,
        bookmark_id,
        cache,  # option: redis
    )
    _set_etag(response, bookmark)
    return bookmark


@router.put(
    "/{bookmark_id}",
    dependencies=[AccountRequired],  # option: auth
    responses=responses(*CHANGE_ERRORS, errors.DuplicateBookmark),
    openapi_extra={"parameters": [IF_MATCH]},
)
async def replace_bookmark(
    bookmark_id: uuid.UUID,
    new: BookmarkInput,
    version: IfMatch,
    session: Session,
    cache: CacheDep,  # option: redis
    response: Response,
) -> BookmarkRead:
    """Replace the content of a bookmark, if it is still the version that was read."""
    bookmark = await service.replace(
        session,
        bookmark_id,
        version,
        new,
        cache,  # option: redis
    )
    _set_etag(response, bookmark)
    return bookmark


@router.delete(
    "/{bookmark_id}",
    status_code=204,
    dependencies=[AccountRequired],  # option: auth
    responses=responses(*CHANGE_ERRORS),
    openapi_extra={"parameters": [IF_MATCH]},
)
async def delete_bookmark(
    bookmark_id: uuid.UUID,
    version: IfMatch,
    session: Session,
    cache: CacheDep,  # option: redis
) -> None:
    """Delete a bookmark, if it is still the version that was read."""
    await service.delete(
        session,
        bookmark_id,
        version,
        cache,  # option: redis
    )
