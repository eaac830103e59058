"""docs/call-another-service.md, followed literally in a baked service."""

import re
import sys
from pathlib import Path

import pytest
from conftest import Bake
from test_add_a_feature import write_files
from test_baked_service import Install, check, install, run, run_tests

pytestmark = [pytest.mark.slow, pytest.mark.posix]
__all__ = ["install"]  # a fixture

# The places of lines that the page names, the code before each place, and the indentation.
PLACES = {
    "src/app/main.py": (
        ("below the import of the bookmarks", r"from app\.features\.bookmarks .*\n", 0),
        ("below that line", r"from app\.features\.payments import .*\n", 0),
        (r"in `open_state\(\)`, above `yield state`", r"(?=        yield state\n)", 8),
        ("below the router of the bookmarks", r"    app\.include_router\(bookmarks\.router\)\n", 4),
    ),
}


def add_lines(project: Path, page: str) -> None:
    for name, places in PLACES.items():
        file = project / name
        text = file.read_text(encoding="utf-8")
        for place, before, depth in places:
            (line,) = re.findall(rf"^- {place}: `(.+)`$", page, re.MULTILINE)
            text, count = re.subn(before, lambda m, new=" " * depth + line: f"{m[0]}{new}\n", text)
            assert count == 1, place
        file.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "answers",
    [{}, {"auth": "oidc", "redis": False, "pgvector": True}],
    ids=["defaults", "OpenID Connect and vectors without Redis"],
)
def test_client_of_the_docs_page_passes_all_checks(
    bake: Bake, tmp_path: Path, install: Install, answers: dict[str, object]
) -> None:
    project = bake(lock=True, **answers).copy_to(tmp_path / "project")
    page = (project / "docs" / "call-another-service.md").read_text(encoding="utf-8")
    install(project, sys.executable)
    (add,) = re.findall(r"^uv add .+$", page, re.MULTILINE)
    run(project, "sh", "-ec", add)
    write_files(project, page)
    add_lines(project, page)
    conftest = project / "tests" / "conftest.py"
    (values,) = re.findall(r"^TEST_VALUES.+\n", page, re.MULTILINE)
    text, count = re.subn(r"^TEST_VALUES.+\n", values, conftest.read_text("utf-8"), flags=re.M)
    assert count == 1
    conftest.write_text(text, encoding="utf-8")
    assert "```sh\nmake docs\n```" in page
    run(project, "make", "docs")
    assert "PAYMENTS_URL" in (project / ".env.example").read_text(encoding="utf-8")
    run(project, "make", "fix")
    assert check(project)
    tests = ("tests/features/payments", "tests/infrastructure/test_settings_docs.py")
    assert run_tests(project, *tests)
