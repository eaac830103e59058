"""Which migrations this code carries, and where a database stands among them.

Alembic is not imported for it: a service that only serves is ready sooner, and takes less memory.
"""

import ast
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

import app
from app.db.session import Database

UNDEFINED_TABLE = "42P01"
VERSIONS = files(app) / "migrations" / "versions"

State = Literal["current", "behind", "ahead"]


class MigrationError(Exception):
    """The schema is not, or could not be brought, where this code needs it; one line says why."""


@dataclass(frozen=True)
class Revisions:
    """The migrations that this code carries."""

    head: str | None
    known: frozenset[str]

    def state_of(self, current: str | None) -> State:
        """Compare with a database's revision; one that we do not know comes from newer code."""
        if current == self.head:
            return "current"
        return "behind" if current is None or current in self.known else "ahead"


def load_revisions(folder: Traversable = VERSIONS) -> Revisions:
    """Read the migrations from the package.

    Raises:
        MigrationError: two migrations follow the same one, as after a merge of branches, or one
            does not say in plain text what it is and follows.
    """
    follows = dict(
        _follows(file)
        for file in folder.iterdir()
        if file.name.endswith(".py") and not file.name.startswith("_")
    )
    followed = {revision for before in follows.values() for revision in before}
    heads = sorted(follows.keys() - followed)
    if len(heads) > 1:
        raise MigrationError(
            f"the migrations {', '.join(heads)} are all last: "
            "let each follow another (down_revision)"
        )
    return Revisions(heads[0] if heads else None, frozenset(follows))


def _follows(migration: Traversable) -> tuple[str, tuple[str, ...]]:
    """A migration's revision, and those it follows: none, one, or the several that it merges."""
    found: dict[str, Any] = {}
    try:
        for node in ast.parse(migration.read_text(encoding="utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
                    if name in {"revision", "down_revision"} and node.value:
                        found[name] = ast.literal_eval(node.value)
        revision, before = found["revision"], found["down_revision"] or ()
    except (KeyError, SyntaxError, ValueError) as error:
        raise MigrationError(
            f"{migration.name} does not plainly say its revision and down_revision, as in "
            'revision = "0002"'
        ) from error
    return revision, before if isinstance(before, tuple) else (before,)


async def read_revision(connection: AsyncConnection) -> str | None:
    """The revision a database is at; None if it was never migrated. Takes no lock."""
    try:
        revision: str | None = await connection.scalar(
            text("SELECT version_num FROM alembic_version")
        )
    except exc.ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != UNDEFINED_TABLE:
            raise
        return None
    return revision


async def check_revision(database: Database, revisions: Revisions) -> None:
    """For readiness: a newer database is fine, so that a rolled-back version serves.

    Raises:
        MigrationError: the database is behind this code.
    """
    async with database.probe() as connection:
        current = await read_revision(connection)
    if revisions.state_of(current) == "behind":
        raise MigrationError(
            f"the database is at {current or 'no revision'}, not {revisions.head}: "
            "`app migrate` brings it there"
        )
