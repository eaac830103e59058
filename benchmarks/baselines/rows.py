"""Baselines: FastAPI with the driver alone, and with ORM sessions (`/orm`).

With the driver, `/bookmarks` creates a row in one statement, and `/transactions` between BEGIN and
COMMIT, as the service does.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated

import asyncpg
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import TIMESTAMP, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

URL = os.environ["DATABASE_URL"]
POOL_SIZE = 16  # as in the service
COLUMNS = "id, url, title, version, created_at, updated_at"
READ = f"SELECT {COLUMNS} FROM bookmarks WHERE id = $1"
PAGE = f"SELECT {COLUMNS} FROM bookmarks ORDER BY created_at DESC, id DESC LIMIT $1"
CREATE = f"INSERT INTO bookmarks (url, title) VALUES ($1, $2) RETURNING {COLUMNS}"


class Bookmark(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    url: str
    title: str
    version: int
    created_at: datetime
    updated_at: datetime


class New(BaseModel):
    url: str
    title: str


class Page(BaseModel):
    items: list[Bookmark]


class Row(DeclarativeBase):
    pass


class BookmarkRow(Row):
    __tablename__ = "bookmarks"

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, server_default=text("gen_random_uuid()")
    )
    url: Mapped[str]
    title: Mapped[str]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=text("now()")
    )
    updated_at: Mapped[datetime] = mapped_column(
        TIMESTAMP(timezone=True), server_default=text("now()")
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    engine = create_async_engine(
        URL.replace("postgresql://", "postgresql+asyncpg://"), pool_size=POOL_SIZE, max_overflow=0
    )
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with asyncpg.create_pool(URL, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        app.state.pool = pool
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan, telemetry={"tracing": False, "metrics": False, "logs": False})


@app.get("/bookmarks/{bookmark_id}")
async def read(bookmark_id: uuid.UUID) -> Bookmark:
    row = await app.state.pool.fetchrow(READ, bookmark_id)
    if row is None:
        raise HTTPException(404)
    return Bookmark.model_validate(dict(row))


@app.get("/bookmarks")
async def page(limit: int = 50) -> Page:
    rows = await app.state.pool.fetch(PAGE, limit + 1)
    return Page(items=[Bookmark.model_validate(dict(row)) for row in rows[:limit]])


@app.post("/bookmarks", status_code=201)
async def create(new: New) -> Bookmark:
    row = await app.state.pool.fetchrow(CREATE, new.url, new.title)
    return Bookmark.model_validate(dict(row))


@app.post("/transactions", status_code=201)
async def create_in_a_transaction(new: New) -> Bookmark:
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(CREATE, new.url, new.title)
    return Bookmark.model_validate(dict(row))


async def open_session() -> AsyncIterator[AsyncSession]:
    async with app.state.sessions() as session, session.begin():
        yield session


Session = Annotated[AsyncSession, Depends(open_session)]


@app.get("/orm/{bookmark_id}")
async def read_by_orm(bookmark_id: uuid.UUID, session: Session) -> Bookmark:
    row = await session.get(BookmarkRow, bookmark_id)
    if row is None:
        raise HTTPException(404)
    return Bookmark.model_validate(row)


@app.get("/orm")
async def page_by_orm(session: Session, limit: int = 50) -> Page:
    order = (BookmarkRow.created_at.desc(), BookmarkRow.id.desc())
    rows = await session.scalars(select(BookmarkRow).order_by(*order).limit(limit + 1))
    return Page(items=[Bookmark.model_validate(row) for row in rows.all()[:limit]])


@app.post("/orm", status_code=201)
async def create_by_orm(new: New, session: Session) -> Bookmark:
    row = BookmarkRow(url=new.url, title=new.title)
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return Bookmark.model_validate(row)
