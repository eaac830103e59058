"""docs/add-a-small-feature.md and docs/add-a-feature.md, followed literally in a baked service."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import Bake
from test_baked_service import Install, check, install, run, run_tests

pytestmark = [pytest.mark.slow, pytest.mark.posix]
__all__ = ["install"]  # a fixture

FILE = re.compile(r"^`((?:src|tests)/\S+\.py)`:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^- the (?:import|router), `(.+)`$", re.MULTILINE)
# The pages in the order in which they are followed, and the feature of each.
PAGES = {"add-a-small-feature.md": "products", "add-a-feature.md": "orders"}


def connect(main: Path, feature: str, lines: list[str]) -> None:
    """Put each line after that of the bookmarks, with the same indentation."""
    text = main.read_text(encoding="utf-8")
    for line in lines:
        after = line.replace(feature, "bookmarks")
        text, count = re.subn(
            rf"^( *){re.escape(after)}$", rf"\g<0>\n\g<1>{line}", text, flags=re.MULTILINE
        )
        assert count == 1, after
    main.write_text(text, encoding="utf-8")


def write_files(project: Path, page: str) -> set[str]:
    """Write the files of a page, and return their names."""
    files = FILE.findall(page)
    for name, code in files:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    return {name for name, _ in files}


@pytest.mark.parametrize(
    "answers",
    [{}, {"auth": "accounts", "worker": "postgres"}, {"redis": False, "metrics": False}],
    ids=["defaults", "accounts and jobs", "no option"],
)
def test_feature_of_the_docs_page_passes_all_checks(
    bake: Bake, tmp_path: Path, install: Install, answers: dict[str, object]
) -> None:
    project = bake(lock=True, **answers).copy_to(tmp_path / "project")
    install(project, sys.executable)
    names: set[str] = set()
    for name, feature in PAGES.items():
        page = (project / "docs" / name).read_text(encoding="utf-8")
        names |= write_files(project, page)
        lines = LINE.findall(page)
        assert len(lines) == 2
        connect(project / "src" / "app" / "main.py", feature, lines)
        (migration,) = re.findall(r"^uv run (app migration .+)$", page, re.MULTILINE)
        assert "uv run app migrate\n" in page
        run(project, "uv", "run", "--no-sync", "sh", "-c", f"{migration} && app migrate")
    assert ("src/app/features/orders/jobs.py" in names) == ("worker" in answers)
    (written,) = (project / "src/app/migrations/versions").glob("*_add_orders.py")
    statements = written.read_text(encoding="utf-8")
    assert '"fk_order_lines_product_id"' in statements
    assert 'create_table(\n        "products"' not in statements
    shutil.rmtree(project / ".data", ignore_errors=True)
    assert check(project)
    features = [f"tests/features/{feature}" for feature in PAGES.values()]
    assert run_tests(project, *features, "tests/infrastructure/db/test_migrate.py")
