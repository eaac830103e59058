"""Compare the tables of PgQueuer with those that its installed version needs.

So `app migration` and `alembic check` treat them like the tables of the models.
"""

from collections.abc import Sequence
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from pgqueuer import Queries

PREFIX = "pgqueuer"
UNINSTALL = (
    "DROP TABLE IF EXISTS pgqueuer, pgqueuer_log, pgqueuer_schedules, pgqueuer_statistics",
    "DROP FUNCTION IF EXISTS fn_pgqueuer_changed",
    "DROP TYPE IF EXISTS pgqueuer_status",
)


class ExecuteEach(ops.MigrateOperation):
    """Statements that change the tables of PgQueuer."""

    def __init__(self, statements: Sequence[str], reverse: Sequence[str]) -> None:
        self.statements = statements
        self._reverse = reverse

    def reverse(self) -> "ExecuteEach":
        return ExecuteEach(self._reverse, self.statements)

    def to_diff_tuple(self) -> tuple[object, ...]:
        return ("execute", *self.statements)


@renderers.dispatch_for(ExecuteEach)
def render(_context: AutogenContext, operation: ExecuteEach) -> list[str]:
    """Write each statement, with the rules of Squawk that the library's tables do not follow."""
    ignore = "-- squawk-ignore-file prefer-identity, prefer-bigint-over-int"
    return [f'op.execute(\n    """\n    {ignore}\n{s}\n    """\n)' for s in operation.statements]


def compare_pgqueuer(
    context: AutogenContext, changes: ops.UpgradeOps, _schemas: object
) -> PriorityDispatchResult:
    """Add the statements of the library's own upgrade."""
    if context.connection is not None:
        driver: Any = context.connection.connection.dbapi_connection
        plan = driver.run_async(lambda raw: Queries.from_asyncpg_connection(raw).plan_upgrade())
        if plan.statements:
            is_new = not context.dialect.has_table(context.connection, PREFIX)
            changes.ops.append(ExecuteEach(plan.statements, UNINSTALL if is_new else ()))
    return PriorityDispatchResult.CONTINUE


def is_compared(name: str | None, kind: str, _parents: object) -> bool:
    """Return whether Alembic compares a table: those of PgQueuer have no models."""
    return kind != "table" or not str(name).startswith(PREFIX)


Plugin("app.pgqueuer").add_autogenerate_comparator(
    compare_pgqueuer, "schema", "pgqueuer", priority=DispatchPriority.LAST
)
