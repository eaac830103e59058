"""docs/delete-the-example.md, followed literally in a service with two features of its own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bake
from test_baked_service import Install, check, check_and_test, install, run
from test_user_names import add_feature, connect, replace

pytestmark = [pytest.mark.slow, pytest.mark.alone]
__all__ = ["install"]  # a fixture

OWN = ("articles", "watches")  # before and after the bookmarks
MIGRATION = 'app migration "add own tables"'
# The user's own lines with the word. They stand beside the lines of the example.
OWN_LINE = "# Watches are like bookmarks.\n"
OWN_EXAMPLE = "# POST /watches takes a query, unlike POST /bookmarks.\n"
LINES = re.compile(r"^   In `(\S+)`:\n\n   ```\w+\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)
EXAMPLE_PATH = re.compile(r"bookmarks(/|\.py$)")


def git(project: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


def delete_paths(project: Path, page: str) -> None:
    block = page.partition("   ```\n")[2].partition("   ```\n")[0]
    for name in block.split():
        path = project / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def delete_lines(project: Path, page: str) -> int:
    """Delete the listed lines at any indentation, and return their number."""
    found = LINES.findall(page)
    listed = [(name, [x for x in block.splitlines() if x.strip()]) for name, block in found]
    for name, block in listed:
        path = project / name
        text = path.read_text(encoding="utf-8")
        for line in block:
            text, count = re.subn(rf"^ *{re.escape(line.strip())}\n", "", text, flags=re.MULTILINE)
            assert count == 1, (name, line)
        path.write_text(text, encoding="utf-8")
    return sum(len(block) for _, block in listed)


def removed_lines(project: Path) -> list[str]:
    """Return the lines that differ from the commit, without those of the example's own files."""
    names = git(project, "diff", "--name-only").splitlines()
    changed = [name for name in names if not EXAMPLE_PATH.search(name)]
    diff = git(project, "diff", "--unified=0", "--", *changed)
    return [line[1:].strip() for line in re.findall(r"^-(?!--).*$", diff, re.MULTILINE)]


@pytest.mark.parametrize(
    ("answers", "tests"),
    [
        ({}, []),
        (
            {"auth": "accounts"},
            [
                *("tests/features", "tests/infrastructure/auth/test_tokens.py"),
                "tests/infrastructure/db/test_migrate.py",
            ],
        ),
    ],
    ids=["defaults", "auth"],
)
def test_example_deleted_by_the_docs_page_leaves_own_features_and_passes_all_checks(
    bake: Bake, tmp_path: Path, install: Install, answers: dict[str, object], tests: list[str]
) -> None:
    project = bake(lock=True, **answers).copy_to(tmp_path / "project")
    page = (project / "docs" / "delete-the-example.md").read_text(encoding="utf-8")
    for name in OWN:
        add_feature(project, name)
    main = project / "src" / "app" / "main.py"
    connect(main, list(OWN))
    replace(main, "@asynccontextmanager\n", f"{OWN_LINE}@asynccontextmanager\n")
    smoke_test = project / "scripts" / "smoke_test.py"
    replace(smoke_test, "\n\nclass SmokeTestFailed", f"{OWN_EXAMPLE}\n\nclass SmokeTestFailed")
    install(project, sys.executable)
    run(project, "make", "fix")
    run(project, "uv", "run", "--no-sync", "sh", "-ec", MIGRATION)
    shutil.rmtree(project / ".data")
    assert check(project)
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "Before")

    delete_paths(project, page)
    number = delete_lines(project, page)
    assert 'with `down_revision = "0001"`, if there is one, becomes the first' in page
    (following,) = (
        path
        for path in project.glob("src/app/migrations/versions/*.py")
        if 'down_revision = "0001"' in path.read_text()
    )
    replace(following, 'down_revision = "0001"', "down_revision = None")
    removed = removed_lines(project)
    assert len(removed) == number + 1
    assert not [line for line in removed if re.search("articles|watches", line, re.IGNORECASE)]
    left = {
        line
        for folder in ("src", "tests", "scripts")
        for path in (project / folder).rglob("*.py")
        for line in path.read_text().splitlines(keepends=True)
        if "bookmark" in line.lower()
    }
    assert left == {OWN_LINE, OWN_EXAMPLE}
    print(check_and_test(project, *tests))


def test_migration_of_the_docs_page_drops_the_tables_of_the_example(
    bake: Bake, tmp_path: Path, install: Install
) -> None:
    project = bake(lock=True).copy_to(tmp_path / "project")
    page = (project / "docs" / "delete-the-example.md").read_text(encoding="utf-8")
    versions = project / "src" / "app" / "migrations" / "versions"
    first = (versions / "0001_create_bookmarks.py").read_text()
    delete_paths(project, page)
    delete_lines(project, page)
    (versions / "0001_create_bookmarks.py").write_text(first)
    install(project, sys.executable)
    (command,) = re.findall(r"^uv run (app migration .*)$", page, re.MULTILINE)
    run(project, "uv", "run", "--no-sync", "sh", "-ec", command)
    written = (versions / "0002_drop_bookmarks.py").read_text()
    assert re.findall(r"DROP TABLE (\w+)", written) == ["bookmark_tags", "bookmarks"]
    shutil.rmtree(project / ".data", ignore_errors=True)
    print(check_and_test(project, "tests/infrastructure/db"))
