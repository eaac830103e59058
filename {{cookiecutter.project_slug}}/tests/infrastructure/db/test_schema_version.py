from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.schema_version import MigrationError, load_revisions, read_revisions
from app.db.session import open_database
from conftest import settings_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of migrations."""
    (tmp_path / "versions").mkdir()
    return tmp_path


def write(folder: Path, revision: str, follows: str) -> None:
    lines = f'"""Add x."""\n\nrevision = "{revision}"\ndown_revision = {follows}\n'
    (folder / "versions" / f"{revision}_add_x.py").write_text(lines, encoding="utf-8")


def test_revisions_of_a_folder_have_the_last_as_head(folder: Path) -> None:
    write(folder, "0002", '"0001"')
    write(folder, "0001", "None")
    (folder / "versions" / "__init__.py").touch()
    assert load_revisions(folder).head == "0002"
    assert load_revisions(folder).known == {"0001", "0002"}


def test_revisions_of_an_empty_folder_have_no_head(folder: Path) -> None:
    assert load_revisions(folder).head is None


def test_two_heads_are_refused_until_they_are_merged(folder: Path) -> None:
    write(folder, "0001", "None")
    write(folder, "0002", '"0001"')
    write(folder, "abc3", '"0001"')
    heads = r"0002_add_x\.py and abc3_add_x\.py: run `uv run alembic merge heads"
    with pytest.raises(MigrationError, match=heads):
        load_revisions(folder)
    write(folder, "0004", '("0002", "abc3")')
    assert load_revisions(folder).head == "0004"


def test_two_files_with_one_revision_are_refused(folder: Path) -> None:
    write(folder, "0001", "None")
    copy = (folder / "versions" / "0001_add_x.py").read_text()
    (folder / "versions" / "0001_add_y.py").write_text(copy)
    with pytest.raises(MigrationError, match=r"\(0001_add_x\.py and 0001_add_y\.py\)"):
        load_revisions(folder)


@pytest.mark.filterwarnings("ignore:Revision 0001 referenced from 0001 -> 0002")
def test_migration_that_follows_a_missing_one_is_refused(folder: Path) -> None:
    write(folder, "0002", '"0001"')
    with pytest.raises(MigrationError, match="follows '0001', which no file has"):
        load_revisions(folder)


@pytest.mark.parametrize("code", ["revision = next()", 'revision = "', ""])
def test_wrong_migration_is_named(folder: Path, code: str) -> None:
    (folder / "versions" / "0001_odd.py").write_text(code, "utf-8")
    with pytest.raises(MigrationError, match=r"cannot be read: .*0001_odd\.py"):
        load_revisions(folder)


async def test_database_between_branches_and_merge_has_two_revisions(empty_database: str) -> None:
    async with open_database(settings_for(empty_database)) as database:
        async with database.probe() as connection:
            assert await read_revisions(connection) == frozenset()
        async with database.session() as session:
            await session.execute(text("CREATE TABLE alembic_version (version_num varchar(32))"))
            await session.execute(text("INSERT INTO alembic_version VALUES ('0006'), ('0007')"))
        async with database.probe() as connection:
            assert await read_revisions(connection) == {"0006", "0007"}
