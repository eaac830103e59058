"""Compare the migrations of this code with the schema version of a database."""

import asyncio
import re
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import Database

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

NUMBER = re.compile(r"[0-9]{4}")  # a merge has a random revision
REVISION = re.compile(r"""^revision\b.*?=\s*["'](.+?)["']""", re.MULTILINE)  # in a file
UNDEFINED_TABLE = "42P01"
MIGRATIONS = Path(__file__).parents[1] / "migrations"
MERGE_COMMAND = 'uv run alembic merge heads -m "merge branches"'

State = Literal["current", "behind", "ahead"]


class MigrationError(Exception):
    """The schema is not at the version that this code needs. The message is one line."""


@dataclass(frozen=True)
class Revisions:
    """The migrations of this code.

    Attributes:
        head: the last revision, or None if there are no migrations.
        known: every revision.
    """

    head: str | None
    known: frozenset[str]

    def state_of(self, current: frozenset[str]) -> State:
        """Compare with the revisions of a database. An unknown revision comes from newer code."""
        if current == ({self.head} if self.head else set()):
            return "current"
        return "behind" if current <= self.known else "ahead"


@cache
def load_revisions(folder: Path = MIGRATIONS) -> Revisions:
    """Read the migrations of this code.

    This imports Alembic, which takes 50 ms and 7 MiB, so it is not done while a service starts.

    Raises:
        MigrationError: the migrations have several heads, or a file is wrong.
    """
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - the import takes 50 ms

    refuse_duplicates(folder)
    try:
        scripts = ScriptDirectory(folder)
        known = frozenset(script.revision for script in scripts.walk_revisions())
    except KeyError as error:
        raise MigrationError(f"a migration follows {error}, which no file has") from error
    except Exception as error:  # a migration is code, which may raise any error
        raise MigrationError(f"the migrations cannot be read: {explain(error)}") from error
    return Revisions(single_head(scripts), known)


def single_head(scripts: "ScriptDirectory") -> str | None:
    """Return the last revision, or None if there are no migrations.

    Raises:
        MigrationError: the migrations have several heads.
    """
    heads = sorted(scripts.get_heads())
    if len(heads) > 1:
        names = " and ".join(Path(scripts.get_revision(head).path).name for head in heads)
        raise MigrationError(f"the migrations have several heads, {names}: run `{MERGE_COMMAND}`")
    return heads[0] if heads else None


def refuse_duplicates(folder: Path = MIGRATIONS) -> None:
    """Refuse two files with the same revision: Alembic would warn, and run only one of them.

    Raises:
        MigrationError: names the files, and the command that lets one follow the other.
    """
    files: dict[str, list[str]] = {}
    for file in sorted((folder / "versions").glob("[!_.]*.py")):
        if found := REVISION.search(file.read_text(encoding="utf-8")):
            files.setdefault(found[1], []).append(file.name)
    for names in files.values():
        if len(names) > 1:
            raise MigrationError(
                f"two migrations have the same revision ({' and '.join(names)}): run `uv run app "
                "renumber FILE` with the one that is not deployed, and with those that follow it"
            )


def next_number(scripts: "ScriptDirectory") -> str:
    """Return the revision of the next migration: one more than the last that is a number."""
    known = (script.revision for script in scripts.walk_revisions())
    numbers = [int(revision) for revision in known if NUMBER.fullmatch(revision)]
    return f"{max(numbers, default=0) + 1:04d}"


async def read_revisions(connection: AsyncConnection) -> frozenset[str]:
    """Return the revisions that a database is at: one, or several between branches and a merge.

    A database without migrations has none. It takes no lock.
    """
    try:
        rows = await connection.scalars(text("SELECT version_num FROM alembic_version"))
    except exc.ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != UNDEFINED_TABLE:
            raise
        return frozenset()
    return frozenset(rows)


async def check_schema_version(database: Database) -> None:
    """Check for readiness. A newer database passes, so that a rolled-back version serves.

    Raises:
        MigrationError: the database is behind this code, or the migrations have several heads.
    """
    revisions = await asyncio.to_thread(load_revisions)
    async with database.probe() as connection:
        current = await read_revisions(connection)
    if revisions.state_of(current) == "behind":
        raise MigrationError(
            f"the database is at {describe(current)}, not {revisions.head}: run `app migrate`"
        )


def describe(current: frozenset[str]) -> str:
    return " and ".join(sorted(current)) or "no revision"


def explain(error: Exception) -> str:
    """Return one line for an error in the code of a migration, with its place."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if Path(frame.filename).parent.name == "versions"]
    place = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, from the driver if it has one."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
