from pathlib import Path

import pytest
from alembic.script import Script, ScriptDirectory

import app.migrations
from app.migrations.squawk import unsafe_statements

READ = 'op.get_bind().execute(sa.text("SELECT 1")).one()'
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    {}
    op.execute("DROP TABLE orders")
"""


def migration(folder: Path, statement: str) -> Script:
    """Write a migration into a folder with the environment of the service."""
    (folder / "versions").mkdir()
    environment = Path(app.migrations.__path__[0], "env.py").read_text(encoding="utf-8")
    (folder / "env.py").write_text(environment, encoding="utf-8")
    text = MIGRATION.format(statement)
    (folder / "versions" / "0001_fill.py").write_text(text, encoding="utf-8")
    script = ScriptDirectory(folder).get_revision("0001")
    assert script is not None
    return script


def test_migration_that_reads_rows_is_refused_with_the_remedy(tmp_path: Path) -> None:
    remedy = r"reads rows \(AttributeError: .*0001_fill\.py, line 10.*as_sql"
    with pytest.raises(ValueError, match=remedy):
        unsafe_statements(migration(tmp_path, READ))


def test_migration_that_reads_rows_in_a_block_is_checked(tmp_path: Path) -> None:
    script = migration(tmp_path, f"if not op.get_context().as_sql:\n        {READ}")
    assert any("ban-drop-table" in line for line in unsafe_statements(script))
