"""The same work as that of the baselines, in each way that the service offers.

`run.py` copies this module into baked projects. `/rows` executes Core statements, and `/objects`
loads objects with a session. All statements are built once.
"""

import uuid
from datetime import datetime

from app.features.bookmarks.errors import BookmarkNotFound
from app.features.bookmarks.models import Bookmark
from app.web.dependencies import ReadConnection, ReadSession, Session
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from sqlalchemy import bindparam, insert, select

router = APIRouter()


class Row(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    url: str
    title: str
    version: int
    created_at: datetime
    updated_at: datetime


class NewRow(BaseModel):
    url: str
    title: str


class Page(BaseModel):
    items: list[Row]


TABLE = Bookmark.__table__
COLUMNS = [TABLE.c[name] for name in Row.model_fields]
IS_ID = Bookmark.id == bindparam("id")
NEWEST_FIRST = (Bookmark.created_at.desc(), Bookmark.id.desc())
READ_ROW = select(*COLUMNS).where(IS_ID)
READ_ROWS = select(*COLUMNS).order_by(*NEWEST_FIRST).limit(bindparam("limit"))
CREATE_ROW = insert(TABLE).returning(*COLUMNS)
READ_OBJECT = select(Bookmark).where(IS_ID)
READ_OBJECTS = select(Bookmark).order_by(*NEWEST_FIRST).limit(bindparam("limit"))


@router.get("/rows/{row_id}")
async def read_row(row_id: uuid.UUID, connection: ReadConnection) -> Row:
    row = (await connection.execute(READ_ROW, {"id": row_id})).mappings().one_or_none()
    if row is None:
        raise BookmarkNotFound
    return Row.model_validate(row)


@router.get("/rows")
async def read_rows(connection: ReadConnection, limit: int = 50) -> Page:
    rows = (await connection.execute(READ_ROWS, {"limit": limit + 1})).mappings().all()
    return Page(items=[Row.model_validate(row) for row in rows[:limit]])


@router.post("/rows", status_code=201)
async def create_row(new: NewRow, session: Session) -> Row:
    result = await session.execute(CREATE_ROW, {"url": new.url, "title": new.title})
    return Row.model_validate(result.mappings().one())


@router.get("/objects/{row_id}")
async def read_object(row_id: uuid.UUID, session: ReadSession) -> Row:
    found = await session.scalar(READ_OBJECT, {"id": row_id})
    if found is None:
        raise BookmarkNotFound
    return Row.model_validate(found)


@router.get("/objects")
async def read_objects(session: ReadSession, limit: int = 50) -> Page:
    found = (await session.scalars(READ_OBJECTS, {"limit": limit + 1})).all()
    return Page(items=[Row.model_validate(item) for item in found[:limit]])


@router.post("/objects", status_code=201)
async def create_object(new: NewRow, session: Session) -> Row:
    created = Bookmark(url=new.url, title=new.title)
    session.add(created)
    await session.flush()
    return Row.model_validate(created)
