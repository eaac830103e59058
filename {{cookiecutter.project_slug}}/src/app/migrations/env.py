"""What Alembic runs, for `app migrate`, `app migration` and the `alembic` command alike."""

import asyncio
from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from app.db.engine import create_engine
from app.db.migrate import load_models
from app.settings import load_settings


def import_its_module(kind: str, thing: object, new: AutogenContext) -> Literal[False]:
    """Alembic writes `package.module.Type` for the types of other packages, without the import."""
    module = type(thing).__module__
    if kind == "type" and not module.startswith("sqlalchemy."):
        new.imports.add(f"import {module}")
    return False  # written as always


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=load_models(),
        render_item=import_its_module,
        # What is done stays done, and CREATE INDEX CONCURRENTLY can step out.
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run() -> None:
    engine = create_engine(load_settings(), pool_size=1, for_migrations=True)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
elif context.config.attributes.get("connection") is not None:
    run(context.config.attributes["connection"])
else:
    asyncio.run(connect_and_run())
