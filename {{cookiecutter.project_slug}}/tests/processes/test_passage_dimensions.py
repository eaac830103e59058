"""The migration of docs/passages.md."""

import re
from pathlib import Path

from app.db.migrate import migrate
from app.db.session import open_database
from app.features.passages.models import DIMENSIONS
from app.features.passages.schemas import PassageInput
from app.features.passages.service import create
from conftest import settings_for
from processes import ROOT, Finished, add_migration, environment, run


def embedding_of(*first: float) -> list[float]:
    """Return an embedding of these numbers, padded with zeros."""
    return [*first, *[0.0] * (DIMENSIONS - len(first))]


async def test_dimensions_are_changed_by_the_migration_of_the_docs_page(
    empty_database: str, source: Path
) -> None:
    settings = settings_for(empty_database)
    await migrate(settings)
    old = PassageInput(text="of the old model", embedding=embedding_of(1))
    async with open_database(settings) as database, database.session() as session:
        await create(session, old, DIMENSIONS)
    page = (ROOT / "docs" / "passages.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    block = re.sub("(down_)?revision = .*", "", block)
    env = environment(empty_database, LOG_LEVEL="error", **add_migration(source, block))
    assert run_app("migrate", env).returncode == 0
    checked = run_app("check", env)
    assert checked.returncode == 1
    (line,) = [line for line in checked.stdout.splitlines() if line.startswith("embeddings")]
    assert "but the column passages.embedding has 768 dimensions" in line
    assert run_app("check", env | {"EMBEDDING_DIMENSIONS": "768"}).returncode == 0


def run_app(command: str, env: dict[str, str]) -> Finished:
    return run(["app", command], env)
