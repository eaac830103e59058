"""What routes ask for: `Reader` to read, `WriteTransaction` to change something."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from app.db.database import Database, Transaction


async def get_database(request: Request) -> Database:
    database: Database = request.state.database
    return database


async def open_transaction(request: Request) -> AsyncIterator[Transaction]:
    database: Database = request.state.database
    async with database.transaction() as transaction:
        yield transaction


Reader = Annotated[Database, Depends(get_database)]
# scope="function" commits before the response is sent; by default FastAPI would do so after,
# and a client would be told of rows that were never stored.
WriteTransaction = Annotated[Transaction, Depends(open_transaction, scope="function")]
