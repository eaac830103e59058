"""Detect changed check constraints. Alembic compares only their names."""

from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.runtime.plugins import Plugin
from alembic.util import PriorityDispatchResult
from sqlalchemy import CheckConstraint, Column, Connection, MetaData, Table, inspect

# For `autogenerate_plugins`: those of Alembic, and of this package.
PLUGINS = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname", "app.checks"]
PLUGINS += ["app.pgqueuer"]  # option: postgres
COPY = "alembic_check_constraints"


def compare_checks(
    context: AutogenContext,
    changes: ops.ModifyTableOps,
    schema: str | None,
    name: str,
    existing: Table | None,
    table: Table | None,
) -> PriorityDispatchResult:
    """Compare the conditions as PostgreSQL prints them, from a temporary table with the model's."""
    if existing is not None and table is not None and context.connection is not None:
        stored = _conditions(context.connection, name, schema)
        checks = [
            check
            for check in table.constraints
            if isinstance(check, CheckConstraint) and check.name in stored
        ]
        wanted = _printed(context.connection, table, checks) if checks else {}
        for check in checks:
            if wanted[str(check.name)] != stored[str(check.name)]:
                old = CheckConstraint(stored[str(check.name)], name=check.name)
                existing.append_constraint(old)
                changes.ops.append(ops.DropConstraintOp.from_constraint(old))
                changes.ops.append(ops.AddConstraintOp.from_constraint(check))
    return PriorityDispatchResult.CONTINUE


def _conditions(connection: Connection, table: str, schema: str | None = None) -> dict[str, str]:
    found = inspect(connection).get_check_constraints(table, schema=schema)
    return {str(check["name"]): check["sqltext"] for check in found}


def _printed(connection: Connection, table: Table, checks: list[CheckConstraint]) -> dict[str, str]:
    copy = Table(
        COPY,
        MetaData(),
        *[Column(column.name, column.type) for column in table.columns],
        *[CheckConstraint(check.sqltext, name=check.name) for check in checks],
        prefixes=["TEMPORARY"],
    )
    copy.create(connection)
    try:
        return _conditions(connection, COPY)
    finally:
        copy.drop(connection)


Plugin("app.checks").add_autogenerate_comparator(compare_checks, "table", "changed_checks")
