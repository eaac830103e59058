"""The operations of a generated migration, in an order that PostgreSQL accepts."""

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from alembic.operations import ops
from alembic.util import CommandError
from sqlalchemy import ForeignKey

TableName = tuple[str | None, str | None]  # the schema, if it is not the default, and the name


def in_order(generated: Iterable[ops.MigrateOperation]) -> list[ops.MigrateOperation]:
    """Return the operations in an order in which downgrade() can reverse them.

    Constraints are dropped first, before a column is renamed. A table is dropped after those that
    refer to it.

    Raises:
        CommandError: dropped tables refer to each other.
    """
    operations = list(_flatten(generated))
    drops = {table_of(o): o for o in operations if isinstance(o, ops.DropTableOp)}
    referred = {
        table: {_target(key) for key in drop.to_table().foreign_keys} & drops.keys() - {table}
        for table, drop in drops.items()
    }
    try:
        order = list(TopologicalSorter(referred).static_order())
    except CycleError as error:
        names = " and ".join(sorted({str(name) for _, name in error.args[1]}))
        raise CommandError(
            f"the removed tables {names} refer to each other: keep them for now, and first remove "
            "their foreign keys in another migration"
        ) from error
    others = [o for o in operations if not isinstance(o, ops.DropTableOp)]
    others.sort(key=lambda operation: not isinstance(operation, ops.DropConstraintOp))
    return others + [drops[table] for table in reversed(order)]


def _target(key: ForeignKey) -> TableName:
    schema, _, table = key.target_fullname.rpartition(".")[0].rpartition(".")
    return schema or None, table


def _flatten(operations: Iterable[ops.MigrateOperation]) -> Iterator[ops.MigrateOperation]:
    for operation in operations:
        if isinstance(operation, ops.ModifyTableOps):
            yield from _flatten(operation.ops)
        else:
            yield operation


def table_of(operation: Any) -> TableName:
    """Return the schema and the name of the table that an operation changes."""
    if isinstance(operation, ops.CreateForeignKeyOp):
        return operation.kw.get("source_schema"), operation.source_table
    return getattr(operation, "schema", None), getattr(operation, "table_name", None)
