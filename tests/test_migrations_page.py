"""docs/migrations.md, followed in a baked service."""

import re
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import Bake
from test_baked_service import Install, install, run, run_tests

pytestmark = [pytest.mark.slow, pytest.mark.posix]
__all__ = ["install"]  # a fixture

MODELS = '''"""The table of orders."""

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.model import GeneratedId, Model


class Order(Model):
    __tablename__ = "orders"

    id: Mapped[GeneratedId]
    customer: Mapped[str] = mapped_column()
    note: Mapped[str | None]
'''


def test_recipes_of_the_docs_page_are_safe_and_work(
    bake: Bake, tmp_path: Path, install: Install
) -> None:
    project = bake(lock=True).copy_to(tmp_path / "project")
    install(project, sys.executable)
    page = (project / "docs" / "migrations.md").read_text(encoding="utf-8")
    models = project / "src" / "app" / "features" / "orders" / "models.py"
    models.parent.mkdir()
    (models.parent / "__init__.py").touch()
    models.write_text(MODELS, encoding="utf-8")
    (first,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)

    def shell(script: str) -> str:
        return run(project, "uv", "run", "--no-sync", "sh", "-ec", script)

    shell(first)
    code = re.findall(r"^( *)```python\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    arguments, drop, rename, fill, read = [textwrap.dedent(block) for _, block in code]
    versions = project / "src" / "app" / "migrations" / "versions"
    shell('alembic revision -m "fill notes"')
    (file,) = versions.glob("*_fill_notes.py")
    text = file.read_text(encoding="utf-8")
    body = f"def upgrade() -> None:\n{textwrap.indent(fill + read, '    ')}"
    text, count = re.subn(r"def upgrade.*\n(?:    #.*\n)?    pass\n", lambda _: body, text)
    assert count == 1
    file.write_text(text, encoding="utf-8")
    shell("app migrate")

    text = models.read_text(encoding="utf-8")
    text = re.sub(r"    customer: .*\n    note: .*\n", f"    {rename}", text)
    models.write_text(text, encoding="utf-8")
    shell('app migration "rename" && app migrate')
    generated = "".join(file.read_text() for file in versions.glob("*_rename*.py"))
    assert "RENAME COLUMN customer TO buyer" in generated
    assert re.sub(r"\s", "", drop) in re.sub(r"\s", "", generated)

    arguments = textwrap.indent(arguments.replace("customer", "buyer"), "    ")
    models.write_text(f"{text}\n{arguments}", encoding="utf-8")
    shell('app migration "search" && app migrate && alembic check')
    shell("ruff check src && ruff format --check src")
    assert "lower(buyer)" in "".join(file.read_text() for file in versions.glob("*_search*.py"))
    assert run_tests(project, "tests/infrastructure/db/test_migrate.py")
