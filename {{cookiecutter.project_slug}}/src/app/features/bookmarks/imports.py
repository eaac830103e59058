"""The import of many bookmarks: accepted at once, and done by a worker."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.auth.dependencies import CurrentAccountId  # option: auth
from app.features.bookmarks.jobs import import_bookmarks
from app.features.bookmarks.schemas import BookmarkInput
from app.jobs.enqueue import enqueue
from app.jobs.schemas import JobAccepted
from app.web.dependencies import Session

router = APIRouter(prefix="/imports")


class BookmarkImport(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bookmarks: list[BookmarkInput] = Field(min_length=1, max_length=1000)


@router.post("", status_code=202)
async def start_import(
    new: BookmarkImport,
    session: Session,
    account_id: CurrentAccountId,  # option: auth
    request: Request,
    response: Response,
) -> JobAccepted:
    """Accept bookmarks, and store them later. `Location` has the status of the import."""
    job_id = await enqueue(
        session,
        import_bookmarks,
        bookmarks=new.model_dump(mode="json")["bookmarks"],
        owner_id=account_id,  # option: auth
    )
    response.headers["Location"] = f"{request.scope['root_path']}/jobs/{job_id}"
    return JobAccepted(id=job_id)
