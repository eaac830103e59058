"""docs/add-a-feature.md, followed literally in a baked service."""

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


def connect(main: Path, lines: list[str]) -> None:
    """Put each line after that of the bookmarks, with the same indentation."""
    text = main.read_text(encoding="utf-8")
    for line in lines:
        after = line.replace("orders", "bookmarks")
        text, count = re.subn(
            rf"^( *){re.escape(after)}$", rf"\g<0>\n\g<1>{line}", text, flags=re.MULTILINE
        )
        assert count == 1, after
    main.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "answers",
    [{}, {"auth": True, "worker": "taskiq"}, {"redis": False, "metrics": False}],
    ids=["defaults", "accounts and jobs", "no option"],
)
def test_feature_of_the_docs_page_passes_all_checks(
    bake: Bake, tmp_path: Path, install: Install, answers: dict[str, object]
) -> None:
    project = bake(lock=True, **answers).copy_to(tmp_path / "project")
    page = (project / "docs" / "add-a-feature.md").read_text(encoding="utf-8")
    files, lines = FILE.findall(page), LINE.findall(page)
    assert len(lines) == 2
    for name, code in files:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    assert ("src/app/features/orders/jobs.py" in dict(files)) == ("worker" in answers)
    connect(project / "src" / "app" / "main.py", lines)
    install(project, sys.executable)
    (migration,) = re.findall(r"^uv run (app migration .+)$", page, re.MULTILINE)
    assert "uv run app migrate\n" in page
    run(project, "uv", "run", "--no-sync", "sh", "-c", f"{migration} && app migrate")
    shutil.rmtree(project / ".data", ignore_errors=True)
    assert check(project)
    assert run_tests(project, "tests/features/orders", "tests/db/test_migrate.py")
