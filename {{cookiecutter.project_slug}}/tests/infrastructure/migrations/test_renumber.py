from pathlib import Path

import pytest

from app.db.schema_version import MigrationError, load_revisions
from app.migrations.renumber import renumber


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """Return a folder of migrations."""
    (tmp_path / "versions").mkdir()
    return tmp_path / "versions"


def write(versions: Path, name: str, follows: str | None) -> None:
    revision = name.partition("_")[0]
    text = f'"""x"""\n\nrevision = "{revision}"\ndown_revision: str | None = {follows!r}\n'
    (versions / f"{name}.py").write_text(text, encoding="utf-8")


def test_renumbered_migrations_follow_all_others_in_their_order(versions: Path) -> None:
    write(versions, "0001_begin", None)
    write(versions, "0002_theirs", "0001")
    write(versions, "0002_ours", "0001")
    write(versions, "0003_ours_indexes", "0002")
    with pytest.raises(MigrationError, match=r"0002_ours\.py and 0002_theirs\.py.* app renumber"):
        load_revisions(versions.parent)
    renamed = renumber(["0002_ours.py", "0003_ours_indexes.py"], versions)
    assert [file.name for file in renamed] == ["0003_ours.py", "0004_ours_indexes.py"]
    assert sorted(file.name for file in versions.glob("*.py")) == [
        "0001_begin.py",
        "0002_theirs.py",
        "0003_ours.py",
        "0004_ours_indexes.py",
    ]
    assert renamed[0].read_text() == (
        '"""x"""\n\nrevision = "0003"\ndown_revision: str | None = "0002"\n'
    )
    load_revisions.cache_clear()
    assert load_revisions(versions.parent).head == "0004"


def test_several_heads_are_merged_by_renumbering_one(versions: Path) -> None:
    write(versions, "0001_begin", None)
    write(versions, "0002_theirs", "0001")
    write(versions, "0003_ours", "0001")
    assert [file.name for file in renumber(["0003_ours.py"], versions)] == ["0003_ours.py"]
    assert load_revisions(versions.parent).head == "0003"


def test_missing_file_changes_nothing(versions: Path) -> None:
    write(versions, "0001_begin", None)
    with pytest.raises(MigrationError, match=r"has no 0002_ours\.py"):
        renumber(["0001_begin.py", "0002_ours.py"], versions)
    assert [file.name for file in versions.glob("*.py")] == ["0001_begin.py"]


def test_repeated_name_is_one_migration(versions: Path) -> None:
    write(versions, "0001_begin", None)
    write(versions, "0003_ours", "0001")
    assert [file.name for file in renumber(["0003_ours.py"] * 2, versions)] == ["0002_ours.py"]
    assert load_revisions(versions.parent).head == "0002"


def test_new_name_that_another_renumbered_file_has_overwrites_nothing(versions: Path) -> None:
    write(versions, "0001_begin", None)
    write(versions, "0002_notes", "0001")
    write(versions, "0003_notes", "0002")
    later, earlier = renumber(["0003_notes.py", "0002_notes.py"], versions)
    assert (later.name, earlier.name) == ("0002_notes.py", "0003_notes.py")
    assert later.is_file()
    assert load_revisions(versions.parent).head == "0003"


def test_renumbered_first_migration_follows_none(versions: Path) -> None:
    write(versions, "0004_begin", None)
    (renamed,) = renumber(["0004_begin.py"], versions)
    assert "down_revision: str | None = None\n" in renamed.read_text()
    assert load_revisions(versions.parent).head == "0001"


@pytest.mark.filterwarnings("ignore:Revision 0002 referenced from")  # of Alembic
def test_migration_that_another_one_follows_is_not_renumbered_alone(versions: Path) -> None:
    write(versions, "0001_begin", None)
    write(versions, "0002_ours", "0001")
    write(versions, "0003_ours_indexes", "0002")
    with pytest.raises(MigrationError, match="not named follows '0002': name it as well"):
        renumber(["0002_ours.py"], versions)
    assert load_revisions(versions.parent).head == "0003"
