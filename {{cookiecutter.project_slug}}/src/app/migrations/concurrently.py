"""An operation of Alembic that builds and drops indexes while rows are written."""

from typing import Any

from alembic.autogenerate import render_op_text, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops


class Concurrently(ops.MigrateOperation):
    """Create or drop indexes outside of a transaction. Only this waits for other transactions."""

    def __init__(self, *operations: ops.CreateIndexOp | ops.DropIndexOp) -> None:
        self.operations = operations


@renderers.dispatch_for(Concurrently)
def render_concurrently(context: AutogenContext, block: Concurrently) -> str:
    """Write a block that can be repeated: a failed attempt leaves an invalid index behind."""
    lines = ["with op.get_context().autocommit_block():", 'op.execute("SET lock_timeout = 0")']
    for operation in block.operations:
        name, table = operation.index_name, operation.table_name
        assert name is not None
        options: dict[str, Any] = {"schema": operation.schema, "postgresql_concurrently": True}
        drop = ops.DropIndexOp(name, table, if_exists=True, **options)
        lines.append(render_op_text(context, drop))
        if isinstance(operation, ops.CreateIndexOp):
            operation.if_not_exists = True  # Squawk requires it
            operation.kw["postgresql_concurrently"] = True
            lines.append(render_op_text(context, operation))
    return "\n    ".join([*lines, 'op.execute("RESET lock_timeout")'])
