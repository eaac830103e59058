"""Renumber migrations of a branch, so that they follow those of the branch it is merged into."""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic.script import ScriptDirectory

from app.db.schema_version import MIGRATIONS, MigrationError, next_number, single_head

VERSIONS = MIGRATIONS / "versions"


def renumber(names: list[str], versions: Path = VERSIONS) -> list[Path]:
    """Rename migrations, and change their revisions, so that they follow all others.

    Args:
        names: file names of the migrations, in the order in which they run.
        versions: the folder of the migrations.

    Returns:
        The new files.

    Raises:
        MigrationError: a file is missing, another migration follows one of them, or the others
            have several heads. No file is changed.
    """
    names = list(dict.fromkeys(names))
    if missing := [name for name in names if not (versions / name).is_file()]:
        raise MigrationError(f"{versions} has no {' and no '.join(missing)}")
    with TemporaryDirectory() as folder:
        ignored = shutil.ignore_patterns("__pycache__", *names)
        shutil.copytree(versions, Path(folder, "versions"), ignore=ignored)
        others = ScriptDirectory(folder)
        try:
            previous, first = single_head(others), int(next_number(others))
        except KeyError as error:
            raise MigrationError(
                f"a migration that is not named follows {error}: name it as well"
            ) from error
    texts: dict[Path, str] = {}
    for number, name in enumerate(names, first):
        revision = f"{number:04d}"
        text = (versions / name).read_text(encoding="utf-8")
        for key, value in (("revision", revision), ("down_revision", previous)):
            literal = f'"{value}"' if value else "None"
            text = re.sub(rf"^({key}\b.*?=).*$", rf"\g<1> {literal}", text, flags=re.MULTILINE)
        texts[versions / f"{revision}_{name.partition('_')[2]}"] = text
        previous = revision
    # A new name can be the old one of another file.
    for name in names:
        (versions / name).unlink()
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    return list(texts)
