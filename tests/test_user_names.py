"""A service whose features have the names that tests of the template used to have.

A user runs the template's tests together with his own features. None of their routes, packages,
tables, migrations and test files may meet.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bake
from test_add_a_setting import blocks_of, declare, set_test_values
from test_baked_service import Install, check_and_test, install, run

pytestmark = [pytest.mark.slow, pytest.mark.alone]
__all__ = ["install"]  # a fixture

NAMES = re.findall(  # of routes, packages, tables and test files
    r"\w+",
    "orders notes users items things words tests "
    "boom broken call cancel commands echo group held large nowhere own read sleep statement "
    "statements stream strict write wrong "
    "counted counting half_done scratch tries written "
    "cli health_checks hosts problems passwords processes sql tokens workers ",
)
FEATURE = {
    "src/app/features/{name}/__init__.py": '"""A feature of the user."""\n',
    "src/app/features/{name}/models.py": '''"""The table."""

from sqlalchemy.orm import Mapped

from app.db.model import GeneratedId, Model


class {model}(Model):
    __tablename__ = "{name}"

    id: Mapped[GeneratedId]
    text: Mapped[str]
''',
    "src/app/features/{name}/seed.py": '''"""Example data."""

from app.db.session import Database
from app.features.{name}.models import {model}


async def seed(database: Database) -> int:
    """Add a row, whether there is one or not."""
    async with database.session() as session:
        session.add({model}(text="example"))
    return 1
''',
    "src/app/features/{name}/routes.py": '''"""The routes."""

from fastapi import APIRouter
from sqlalchemy import select

from app.features.{name}.models import {model}
from app.web.dependencies import ReadSession, Session

router = APIRouter(prefix="/{name}", tags=["{name}"])


@router.get("")
async def {name}(session: ReadSession) -> list[str]:
    """Return the texts."""
    return list(await session.scalars(select({model}.text)))


@router.post("", status_code=201)
async def create_{name}(session: Session, text: str) -> None:
    """Store a text."""
    session.add({model}(text=text))


@router.get("/{{key}}", responses={{422: {{"description": "No JSON"}}}})
async def show_{name}(key: str) -> str:
    """Return the key."""
    return key
''',
    "tests/features/{name}/conftest.py": """import pytest


@pytest.fixture
def path() -> str:
    return "/{name}"
""",
    "tests/features/{name}/test_{name}.py": """from httpx import AsyncClient


async def test_text_is_stored(client: AsyncClient, path: str) -> None:
    assert (await client.post(path, params={{"text": "a"}})).status_code == 201
    assert (await client.get(path)).json() == ["a"]
    assert (await client.get(f"{{path}}/b")).json() == "b"
""",
}
MIGRATIONS = """
app migration "add user tables"
alembic revision -m "fill orders"
alembic revision -m "fill notes" --head {head} --splice
alembic merge heads -m "merge branches"
"""
MISSING = "ERROR: PAYMENT_KEY: Field required (see TEST_VALUES in tests/conftest.py)"


def add_feature(project: Path, name: str) -> None:
    """Add a small feature: a table, routes, example data and tests."""
    for path, text in FEATURE.items():
        file = project / path.format(name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        model = "".join(word.capitalize() for word in name.split("_"))
        file.write_text(text.format(name=name, model=model), encoding="utf-8")


def connect(main: Path, names: list[str]) -> None:
    """Import and include the router of each feature after that of the bookmarks."""
    for line in (
        "from app.features.{name} import routes as {name}\n",
        "    app.include_router({name}.router)\n",
    ):
        example = line.format(name="bookmarks")
        replace(main, example, example + "".join(line.format(name=name) for name in names))


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, (file, old)
    file.write_text(text.replace(old, new), encoding="utf-8")


def set_version(project: Path, version: str) -> None:
    for name in ("pyproject.toml", "uv.lock"):
        before = 'name = "example-service"\nversion = '
        replace(project / name, f'{before}"0.1.0"', f'{before}"{version}"')


def test_features_with_any_name_pass_together_with_the_tests_of_the_template(
    bake: Bake, tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = bake(lock=True, auth="accounts", webhooks=True).copy_to(tmp_path / "project")
    for name in NAMES:
        add_feature(project, name)
    connect(project / "src" / "app" / "main.py", NAMES)
    setting = blocks_of(project)
    declare(project, setting)
    set_version(project, "2.3.4")
    install(project, sys.executable)
    run(project, "make", "fix")
    run(project, "make", "docs")

    result = subprocess.run(
        ["uv", "run", "--no-sync", "pytest"],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr.strip() == MISSING
    set_test_values(project, setting)

    versions = project / "src" / "app" / "migrations" / "versions"
    head = len(list(versions.glob("[0-9]*.py"))) + 1
    script = MIGRATIONS.format(head=f"{head:04d}")
    with monkeypatch.context() as patch:
        patch.setenv("PAYMENT_KEY", "of-development")
        run(project, "uv", "run", "--no-sync", "sh", "-ec", script)
    shutil.rmtree(project / ".data")
    assert len(list(versions.glob("*_merge_branches.py"))) == 1
    print(check_and_test(project))
