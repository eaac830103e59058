"""Split a generated migration into steps that requests do not wait for.

PostgreSQL holds a lock until the end of its transaction, and a migration is one transaction. So a
change that needs several transactions becomes several migrations, in the order of `STEPS`. The
rules are those of Squawk (https://squawkhq.com/docs/rules) and of the notes of ALTER TABLE and
CREATE INDEX in the documentation of PostgreSQL.
"""

from collections.abc import Iterable, Iterator
from functools import singledispatchmethod
from typing import Any

from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CHAR, Numeric, String
from sqlalchemy.sql.elements import conv
from sqlalchemy.types import TypeEngine

from app.migrations.concurrently import Concurrently
from app.migrations.order import in_order, table_of

# Each step but the first ends the message of its migration.
STEPS = ("", "indexes", "validation", "constraints", "removal")
RENAMED_FROM = "renamed_from"  # key of `mapped_column(info=…)`: the former name of the column

# A step, and the operations that upgrade() and downgrade() run for a change.
Change = tuple[str, ops.MigrateOperation | None, ops.MigrateOperation | None]


def split(context: MigrationContext, script: ops.MigrationScript) -> list[ops.MigrationScript]:
    """Return the steps of a generated migration, without revisions.

    Args:
        context: of the database that the models were compared with.
        script: the migration. Its first step keeps its options.
    """
    assert script.upgrade_ops is not None
    operations = in_order(script.upgrade_ops.ops)
    changes = list(_Splitter(context, operations).changes())
    scripts: list[ops.MigrationScript] = []
    for step in STEPS:
        of_step = [change for change in changes if change[0] == step]
        if not of_step:
            continue
        upgrade = ops.UpgradeOps(list(_join(up for _, up, _ in of_step)))
        downgrade = ops.DowngradeOps(list(_join(down for _, _, down in reversed(of_step))))
        if scripts:
            message = f"{script.message or ''} {step}".strip()
            scripts.append(ops.MigrationScript(None, upgrade, downgrade, message=message))
        else:
            script.upgrade_ops, script.downgrade_ops = upgrade, downgrade
            scripts.append(script)
    return scripts or [script]


def _join(operations: Iterable[ops.MigrateOperation | None]) -> Iterator[ops.MigrateOperation]:
    """Put the operations on indexes into one block, at the end of their step."""
    indexes: list[ops.CreateIndexOp | ops.DropIndexOp] = []
    for operation in operations:
        if isinstance(operation, Concurrently):
            indexes += operation.operations
        elif operation is not None:
            yield operation
    if indexes:
        yield Concurrently(*indexes)


class _Splitter:
    """Assign the operations of a migration to steps."""

    def __init__(self, context: MigrationContext, operations: list[ops.MigrateOperation]) -> None:
        self._dialect = context.dialect
        self._operations = operations
        self._new = {table_of(o) for o in operations if isinstance(o, ops.CreateTableOp)}
        self._dropped = {table_of(o) for o in operations if isinstance(o, ops.DropTableOp)}
        columns = {
            (*table_of(o), o.column_name) for o in operations if isinstance(o, ops.DropColumnOp)
        }
        self._renamed = {
            former: o.column.name
            for o in operations
            if isinstance(o, ops.AddColumnOp)
            and (former := (*table_of(o), str(o.column.info.get(RENAMED_FROM)))) in columns
        }

    def changes(self) -> Iterator[Change]:
        for operation in self._operations:
            if table_of(operation) in self._new | self._dropped:
                yield from self._changes_of_whole_table(operation)
            else:
                yield from self._changes(operation)

    def _changes_of_whole_table(self, operation: Any) -> Iterator[Change]:
        """No request uses a new table. DROP TABLE drops its indexes and constraints."""
        if table_of(operation) in self._new:
            yield "", operation, operation.reverse()
        elif isinstance(operation, ops.DropTableOp):
            drop = f"DROP TABLE {self._name(operation)}"
            yield "removal", _execute(drop, "ban-drop-table"), operation.reverse()
        else:
            yield "removal", None, operation.reverse()

    @singledispatchmethod
    def _changes(self, operation: Any) -> Iterator[Change]:
        """By default, a change is in the first step."""
        yield "", operation, operation.reverse()

    @_changes.register
    def _(self, operation: ops.AddColumnOp) -> Iterator[Change]:
        column = operation.column
        former = str(column.info.get(RENAMED_FROM))
        if (*table_of(operation), former) in self._renamed:
            old, new = self._quote(former), self._quote(column.name)
            rename = self._alter(operation, f"RENAME COLUMN {old} TO {new}", "renaming-column")
            yield "", rename, self._alter(operation, f"RENAME COLUMN {new} TO {old}")
        else:
            yield "", operation, operation.reverse()

    @_changes.register
    def _(self, operation: ops.DropColumnOp) -> Iterator[Change]:
        if (*table_of(operation), operation.column_name) in self._renamed:
            return
        add = operation.reverse()
        # The rows that were written since have no value.
        add.column.nullable = add.column.nullable or add.column.server_default is None
        drop = f"DROP COLUMN {self._quote(operation.column_name)}"
        yield "removal", self._alter(operation, drop, "ban-drop-column"), add

    @_changes.register
    def _(self, operation: ops.CreateIndexOp) -> Iterator[Change]:
        yield "indexes", Concurrently(operation), Concurrently(operation.reverse())

    @_changes.register
    def _(self, operation: ops.DropIndexOp) -> Iterator[Change]:
        create = operation.reverse()
        # downgrade() creates the index before the first step renames the column back.
        create.columns = [
            self._renamed.get((*table_of(operation), str(getattr(item, "name", item))), item)
            for item in create.columns
        ]
        yield "indexes", Concurrently(operation), Concurrently(create)

    @_changes.register
    def _(self, operation: ops.CreateUniqueConstraintOp) -> Iterator[Change]:
        """Build the index first. Then the constraint is added without reading the table."""
        options = {k: v for k, v in operation.kw.items() if k.startswith("postgresql_")}
        index = ops.CreateIndexOp(
            conv(str(operation.constraint_name)),
            operation.table_name,
            operation.columns,
            schema=operation.schema,
            unique=True,
            **options,
        )
        yield "indexes", Concurrently(index), Concurrently(index.reverse())
        name = self._quote_constraint(operation.constraint_name)
        add = f"ADD CONSTRAINT {name} UNIQUE USING INDEX {name}"
        if operation.kw.get("deferrable"):
            add += f" DEFERRABLE INITIALLY {operation.kw.get('initially') or 'IMMEDIATE'}"
        yield "constraints", self._alter(operation, add), operation.reverse()

    @_changes.register(ops.CreateForeignKeyOp)
    @_changes.register(ops.CreateCheckConstraintOp)
    def _(
        self, operation: ops.CreateForeignKeyOp | ops.CreateCheckConstraintOp
    ) -> Iterator[Change]:
        operation.kw["postgresql_not_valid"] = True
        yield "", operation, operation.reverse()
        name = self._quote_constraint(operation.to_constraint().name)
        yield "validation", self._alter(operation, f"VALIDATE CONSTRAINT {name}"), None

    @_changes.register
    def _(self, operation: ops.DropConstraintOp) -> Iterator[Change]:
        drop = f"DROP CONSTRAINT {self._quote(str(operation.constraint_name))}"
        add = operation.reverse()
        if isinstance(add, ops.CreateForeignKeyOp | ops.CreateCheckConstraintOp):
            add.kw["postgresql_not_valid"] = True
        yield "", self._alter(operation, drop, "ban-drop-constraint"), add

    @_changes.register
    def _(self, operation: ops.AlterColumnOp) -> Iterator[Change]:
        column = f"ALTER COLUMN {self._quote(operation.column_name)}"
        if operation.modify_nullable is False:
            yield from self._set_not_null(operation)
        elif operation.modify_nullable:
            drop = self._alter(operation, f"{column} DROP NOT NULL", "ban-drop-not-null")
            yield "", drop, self._alter(operation, f"{column} SET NOT NULL")
        operation.modify_nullable = None
        old, new = operation.existing_type, operation.modify_type
        if old is not None and new is not None and _is_widened(old, new):
            widen, narrow = (f"{column} TYPE {kind.compile(self._dialect)}" for kind in (new, old))
            widened = self._alter(operation, widen, "changing-column-type")
            yield "", widened, self._alter(operation, narrow)
            operation.modify_type = None
        if operation.has_changes():
            yield "", operation, operation.reverse()

    def _set_not_null(self, operation: ops.AlterColumnOp) -> Iterator[Change]:
        """Validate a check first. Then SET NOT NULL does not read the table."""
        alter, column = self._alter, self._quote(operation.column_name)
        name = self._quote_constraint(f"ck_{operation.table_name}_{operation.column_name}_not_null")
        add = alter(operation, f"ADD CONSTRAINT {name} CHECK ({column} IS NOT NULL) NOT VALID")
        yield "", add, alter(operation, f"DROP CONSTRAINT {name}")
        yield "validation", alter(operation, f"VALIDATE CONSTRAINT {name}"), None
        not_null = f"ALTER COLUMN {column} SET NOT NULL"
        set_not_null = alter(operation, not_null, "adding-not-nullable-field")
        yield "constraints", set_not_null, alter(operation, f"ALTER COLUMN {column} DROP NOT NULL")
        drop = alter(operation, f"DROP CONSTRAINT {name}", "ban-drop-constraint")
        yield "constraints", drop, add

    def _alter(
        self, operation: ops.MigrateOperation, change: str, accepted_rule: str | None = None
    ) -> ops.ExecuteSQLOp:
        return _execute(f"ALTER TABLE {self._name(operation)} {change}", accepted_rule)

    def _name(self, operation: ops.MigrateOperation) -> str:
        schema, table = table_of(operation)
        return ".".join(self._quote(part) for part in (schema, table) if part)

    def _quote(self, name: str) -> str:
        return self._dialect.identifier_preparer.quote(name)

    def _quote_constraint(self, name: object) -> str:
        """Quote a name, shortened as in the operations of Alembic if it is too long."""
        preparer = self._dialect.identifier_preparer
        return str(preparer.truncate_and_render_constraint_name(conv(str(name))))


def _execute(sql: str, accepted_rule: str | None) -> ops.ExecuteSQLOp:
    """Return a statement, with a comment for Squawk if it is safe in its step."""
    return ops.ExecuteSQLOp(f"-- squawk-ignore {accepted_rule}\n{sql}" if accepted_rule else sql)


def _is_widened(old: TypeEngine[Any], new: TypeEngine[Any]) -> bool:
    """Say if a change of type keeps the stored values, so that PostgreSQL reads no row."""
    if isinstance(old, CHAR) or isinstance(new, CHAR):
        return False  # stored with trailing spaces
    if isinstance(old, String) and isinstance(new, String):
        return new.length is None or (old.length is not None and old.length < new.length)
    if isinstance(old, Numeric) and isinstance(new, Numeric):
        if new.precision is None:
            return True
        return old.scale == new.scale and (old.precision or new.precision) < new.precision
    return False
