"""The direction of `app migrate --to`: up or down, or the reason that there is none."""

from collections.abc import Callable

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.db.schema_version import MIGRATIONS, MigrationError, describe
from app.db.settings import DatabaseSettings

BASE = "base"  # Alembic's name for a database without migrations
LISTED = 10  # revisions in an error

Step = tuple[Callable[[Config, str], None], str]  # a command of Alembic, and its revision


class MigrationTarget:
    """A revision that a database should have."""

    def __init__(self, name: str, settings: DatabaseSettings) -> None:
        """Look the revision up.

        Args:
            name: a revision, or "base".
            settings: staging and production refuse to downgrade.

        Raises:
            MigrationError: there is no such revision.
        """
        self._name = name
        self._settings = settings
        self._scripts = ScriptDirectory(MIGRATIONS)
        self._known = [s.revision for s in self._scripts.walk_revisions()][::-1]
        if name not in (BASE, *self._known):
            last = ", ".join([BASE, *self._known][-LISTED:])
            raise MigrationError(f"there is no revision {name!r}: the last ones are {last}")

    def step_from(self, current: frozenset[str]) -> Step | None:
        """Return the step from the revisions of a database; None if it has the revision.

        Raises:
            MigrationError: the database would be downgraded in production, or it has a revision
                of newer code or of another branch.
        """
        if not current <= set(self._known):
            raise newer_than_code(current)
        if current == {self._name} - {BASE}:
            return None
        if current <= self._through([self._name]):
            return command.upgrade, self._name
        if self._name not in {BASE, *self._through(current)}:
            raise MigrationError(
                f"{self._name} and {describe(current)} are on two branches: migrate to a revision "
                "before both first"
            )
        if self._settings.is_deployed:
            raise MigrationError(
                f"{self._settings.environment} does not downgrade from {describe(current)}: deploy "
                "an earlier version, which works with this schema (docs/deployment/rollback.md)"
            )
        return command.downgrade, self._name

    def _through(self, revisions: list[str] | frozenset[str]) -> set[str]:
        """Return these revisions and all before them."""
        found = self._scripts.iterate_revisions(tuple(revisions), BASE)
        return {script.revision for script in found}


def newer_than_code(current: frozenset[str]) -> MigrationError:
    """Return the error for a database with revisions that this code does not have."""
    return MigrationError(
        f"the database is at {describe(current)}, which this code does not have: get the code that "
        "has it, or use an empty database (in development, run `app db reset`)"
    )
