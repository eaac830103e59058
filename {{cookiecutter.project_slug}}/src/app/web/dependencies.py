"""Dependencies for routes: `Session`, `ReadSession`, `ReadConnection` and objects of the lifespan.

Use one of the three in a request. Each holds a connection, and requests that wait for a second one
can block each other until the timeout, which is a 503.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db.session import Database


def from_state(name: str) -> Any:
    """Depend on an object that the lifespan in main.py opened.

    Args:
        name: its key in the state.
    """

    async def read_state(request: Request) -> Any:
        return request.state[name]

    return Depends(read_state)


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.state["database"]
    async with database.session() as session:
        yield session


async def open_read_session(request: Request) -> AsyncIterator[AsyncSession]:
    database: Database = request.state["database"]
    async with database.read_session() as session:
        yield session


async def open_read_connection(request: Request) -> AsyncIterator[AsyncConnection]:
    database: Database = request.state["database"]
    async with database.read_connection() as connection:
        yield connection


# scope="function" commits before the response is sent. By default FastAPI closes a dependency
# after the response, and the client would see a success although the commit failed.
Session = Annotated[AsyncSession, Depends(open_session, scope="function")]
ReadSession = Annotated[AsyncSession, Depends(open_read_session, scope="function")]
ReadConnection = Annotated[AsyncConnection, Depends(open_read_connection, scope="function")]
DatabaseDep = Annotated[Database, from_state("database")]
