from pathlib import Path

import pytest
from alembic import command

from app.db.migration_target import MigrationTarget
from app.db.schema_version import MigrationError
from conftest import settings_for

MIGRATION = "revision = {!r}\ndown_revision = {!r}\n"
REVISIONS: dict[str, object] = {
    "0001": None,
    "0002": "0001",
    "0003": "0001",  # another branch
    "0004": ("0002", "0003"),
}


@pytest.fixture(autouse=True)
def migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the migrations by those of REVISIONS."""
    (tmp_path / "versions").mkdir()
    for revision, before in REVISIONS.items():
        file = tmp_path / "versions" / f"{revision}_change.py"
        file.write_text(MIGRATION.format(revision, before))
    monkeypatch.setattr("app.db.migration_target.MIGRATIONS", tmp_path)


def target(name: str, environment: str = "development") -> MigrationTarget:
    settings = settings_for("postgresql://db/app")
    return MigrationTarget(name, settings.model_copy(update={"environment": environment}))


UP, DOWN = command.upgrade, command.downgrade


@pytest.mark.parametrize(
    ("current", "name", "expected"),
    [
        (set(), "0002", UP),
        ({"0001"}, "0002", UP),
        ({"0001"}, "0004", UP),
        ({"0002"}, "0004", UP),
        ({"0002", "0003"}, "0004", UP),
        ({"0004"}, "0002", DOWN),
        ({"0004"}, "0001", DOWN),
        ({"0002", "0003"}, "0001", DOWN),
        ({"0001"}, "base", DOWN),
        ({"0001"}, "0001", None),
        (set(), "base", None),
    ],
)
def test_target_is_reached_by_an_upgrade_or_a_downgrade(
    current: set[str], name: str, expected: object
) -> None:
    step = target(name).step_from(frozenset(current))
    assert step == (expected and (expected, name))


@pytest.mark.parametrize("name", ["9999", "+1", "-1", "head~", ""])
def test_unknown_target_names_the_known_revisions(name: str) -> None:
    with pytest.raises(MigrationError) as caught:
        target(name)
    known = str(caught.value).partition(": the last ones are ")
    assert known[0] == f"there is no revision {name!r}"
    assert sorted(known[2].split(", ")) == ["0001", "0002", "0003", "0004", "base"]


def test_database_of_newer_code_is_refused() -> None:
    with pytest.raises(MigrationError, match="is at 0005, which this code does not have"):
        target("0001").step_from(frozenset({"0005"}))


def test_target_on_another_branch_is_refused() -> None:
    with pytest.raises(MigrationError, match="0002 and 0003 are on two branches"):
        target("0002").step_from(frozenset({"0003"}))


def test_production_upgrades_and_does_not_downgrade() -> None:
    production = target("0002", "production")
    assert production.step_from(frozenset({"0001"})) == (UP, "0002")
    with pytest.raises(MigrationError, match=r"does not downgrade from 0004: .*rollback\.md"):
        production.step_from(frozenset({"0004"}))
