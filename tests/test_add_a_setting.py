"""docs/add-a-setting.md, followed literally in a baked service."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bake
from test_baked_service import Install, install, run, run_tests

pytestmark = [pytest.mark.slow, pytest.mark.posix]
__all__ = ["install"]  # a fixture

DECLARATION = "src/app/feature_settings.py"
NOT_CURRENT = "is not current: run `make docs`, or `uv run app env --write`"
ROUTE_TESTS = """\
from httpx import AsyncClient

from app.main import create_app
from app.settings import Settings
from conftest import running, settings_for


async def test_settings_are_read(
    client: AsyncClient, settings: Settings, database_url: str
) -> None:
    assert (await client.get("/order-days")).json() == 30
    assert settings.payment_key.get_secret_value() == "of-the-tests"
    async with running(create_app(settings_for(database_url, order_days=1))) as other:
        assert (await other.get("/order-days")).json() == 1
"""


def blocks_of(project: Path) -> dict[str, str]:
    """Return the blocks of the page by what they are for."""
    page = (project / "docs" / "add-a-setting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert f"`{DECLARATION}`:\n\n```python\n{blocks[0]}" in page
    names = ("declaration", "missing", "test values", "variable", "commands", "route")
    return dict(zip(names, blocks, strict=True))


def declare(project: Path, blocks: dict[str, str]) -> None:
    """Write the file of the page: two fields, and no other line but the import."""
    path = project / DECLARATION
    before = path.read_text(encoding="utf-8").splitlines()
    path.write_text(blocks["declaration"], encoding="utf-8")
    added = [line for line in blocks["declaration"].splitlines() if line not in before]
    assert [line.split(":")[0].strip() for line in added if "=" in line] == [
        "order_days",
        "payment_key",
    ]


def set_test_values(project: Path, blocks: dict[str, str]) -> None:
    path = project / "tests" / "conftest.py"
    text = path.read_text(encoding="utf-8")
    empty = "TEST_VALUES: dict[str, str] = {}\n"
    assert text.count(empty) == 1
    path.write_text(text.replace(empty, blocks["test values"]), encoding="utf-8")


def test_setting_of_the_docs_page_passes_all_checks(
    bake: Bake, tmp_path: Path, install: Install
) -> None:
    project = bake(lock=True).copy_to(tmp_path / "project")
    blocks = blocks_of(project)
    declare(project, blocks)
    install(project, sys.executable)

    command = ["uv", "run", "--no-sync", "app", "migrate"]
    refused = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (2, blocks["missing"])
    run(project, "sh", "-ec", blocks["variable"])
    assert (project / ".env").read_text() == "PAYMENT_KEY=of-development\n"
    assert "rows added" in run(project, "uv", "run", "--no-sync", "app", "seed").stdout

    set_test_values(project, blocks)
    *_, tests = blocks["commands"].splitlines()
    before = subprocess.run(
        ["sh", "-c", tests], cwd=project, capture_output=True, text=True, check=False
    )
    assert before.returncode == 1
    for name in (".env.example", ".env.production.template", "docs/settings.md"):
        assert f"{name} {NOT_CURRENT}" in before.stdout
    run(project, "sh", "-ec", blocks["commands"])
    template = (project / ".env.production.template").read_text(encoding="utf-8")
    assert "\nPAYMENT_KEY=\n" in template
    assert "\n# ORDER_DAYS=30\n" in template

    feature = project / "src" / "app" / "features" / "orders"
    feature.mkdir()
    (feature / "__init__.py").write_text('"""Orders."""\n')
    (feature / "routes.py").write_text(f'"""The route."""\n\n{blocks["route"]}')
    main = project / "src" / "app" / "main.py"
    text = main.read_text(encoding="utf-8")
    for line in (
        "from app.features.bookmarks import routes as bookmarks\n",
        "    app.include_router(bookmarks.router)\n",
    ):
        assert text.count(line) == 1
        text = text.replace(line, line + line.replace("bookmarks", "orders"))
    main.write_text(text, encoding="utf-8")
    (project / "tests" / "features" / "orders").mkdir()
    (project / "tests" / "features" / "orders" / "test_orders.py").write_text(ROUTE_TESTS)
    run(project, "make", "check")
    assert run_tests(project, "tests/features/orders")
