import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from app.db.migrate import alembic_config
from app.db.schema_version import MigrationError, load_revisions


def write(folder: Path, revision: str, follows: str) -> None:
    text = f'"""What it does."""\n\nrevision: str = "{revision}"\ndown_revision = {follows}\n'
    (folder / f"{revision}_what_it_does.py").write_text(text, encoding="utf-8")


def test_what_is_read_here_is_what_alembic_reads() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    found = load_revisions()
    assert found.head == scripts.get_current_head()
    assert found.known == {script.revision for script in scripts.walk_revisions()}


def test_the_last_is_the_one_that_none_follows(tmp_path: Path) -> None:
    write(tmp_path, "0002", '"0001"')
    write(tmp_path, "0001", "None")
    (tmp_path / "__init__.py").touch()
    assert load_revisions(tmp_path).head == "0002"
    assert load_revisions(tmp_path).known == {"0001", "0002"}


def test_two_that_are_last_are_refused_until_one_follows_both(tmp_path: Path) -> None:
    write(tmp_path, "0001", "None")
    write(tmp_path, "0002", '"0001"')
    write(tmp_path, "abc3", '"0001"')
    with pytest.raises(MigrationError, match="0002, abc3 are all last"):
        load_revisions(tmp_path)
    write(tmp_path, "0004", '("0002", "abc3")')
    assert load_revisions(tmp_path).head == "0004"


@pytest.mark.parametrize(
    "text", ['revision, down_revision = "1", None', "revision = next()", 'revision = "', ""]
)
def test_a_migration_that_does_not_say_which_it_is_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "0001_odd.py").write_text(text, "utf-8")
    with pytest.raises(MigrationError, match=r"0001_odd\.py does not plainly say its revision"):
        load_revisions(tmp_path)


def test_a_service_that_serves_does_not_import_what_only_migrations_need() -> None:
    program = "import app.main, sys; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
