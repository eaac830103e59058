"""`app migrate --to`."""

from pathlib import Path

from sqlalchemy import text

from app.db.schema_version import load_revisions
from app.db.session import open_database
from conftest import settings_for
from processes import RESERVED, Finished, add_migration, environment, run
from sql import fetch

NEXT = """
from alembic import op


def upgrade() -> None:
    op.execute("CREATE TABLE _test_next (id bigint)")


def downgrade() -> None:
    op.execute("DROP TABLE _test_next")
"""


async def test_migrate_to_a_revision_upgrades_and_downgrades(
    empty_database: str, source: Path
) -> None:
    def migrate_to(revision: str) -> Finished:
        env = environment(empty_database, LOG_FORMAT="json", **copy)
        return run(["app", "migrate", "--to", revision], env)

    async def value_of(statement: str) -> object:
        async with open_database(settings_for(empty_database)) as database:
            ((value,),) = (row.values() for row in await fetch(database, text(statement)))
        return value

    head = load_revisions().head or "base"
    copy = add_migration(source, NEXT)
    for to, table in ((RESERVED, "_test_next"), (head, None), ("head", "_test_next")):
        result = migrate_to(to)
        assert result.returncode == 0, result.stdout
        assert f'"migrated","to":"{RESERVED if to == "head" else to}"' in result.stdout
        assert await value_of("SELECT CAST(to_regclass('_test_next') AS text)") == table
    again = migrate_to(RESERVED)
    assert f'"the database is at the last migration","revision":"{RESERVED}"' in again.stdout
    assert migrate_to("base").returncode == 0
    assert await value_of("SELECT count(*) FROM alembic_version") == 0
    unknown = migrate_to("9999")
    assert unknown.returncode == 1
    assert "there is no revision '9999': the last ones are" in unknown.stdout
    assert RESERVED in unknown.stdout
    assert "Traceback" not in unknown.stdout
