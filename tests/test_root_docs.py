"""The repository's own pages: paths, links and targets exist, and tests run the commands."""

import re
import subprocess

import pytest
from conftest import QUESTIONS, ROOT, TEMPLATE
from test_docs import CODE, FENCE, LINK, anchors, shell_blocks

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
# The test that runs a block of commands, by page and first line.
BLOCKS = {
    ("README.md", "uvx cookiecutter gh:org/template"): (
        "tests/test_first_minutes.py::test_readme_commands_bake_and_serve"
    ),
    ("README.md", "make demo"): (
        "tests/test_first_minutes.py::test_make_demo_with_only_python_serves_and_leaves_nothing"
    ),
    ("CONTRIBUTING.md", f"cd '{TEMPLATE}'"): (
        "tests/test_baked_service.py::test_template_folder_passes_checks_and_tests"
    ),
    (
        "CONTRIBUTING.md",
        "uv venv",
    ): "tests/test_maintenance.py::test_ci_workflow_runs_the_documented_commands",
    ("CONTRIBUTING.md", "make constraints"): (
        "tests/test_maintenance.py::test_refreshed_constraints_respect_bounds_and_keep_markers"
    ),
    ("CONTRIBUTING.md", "git tag v1.2.0"): (
        "tests/test_maintenance.py::test_release_is_proposed_merged_tagged_and_published"
    ),
    ("docs/adding-an-option.md", "make check"): (
        "tests/test_adding_an_option.py::test_option_added_by_the_docs_page_passes_all_checks"
    ),
}


def test_every_command_block_has_a_test() -> None:
    found = {
        (page, block.splitlines()[0])
        for page, text in PAGES.items()
        for block in shell_blocks(text)
    }
    assert found == set(BLOCKS)
    for how in BLOCKS.values():
        path, _, name = how.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), how


def test_every_question_is_in_the_table() -> None:
    firsts = re.findall(r"^\| (`.*?) \|", PAGES["README.md"], re.MULTILINE)
    table = {name for first in firsts for name in CODE.findall(first)}
    assert {name for name in QUESTIONS if not name.startswith("_")} <= table


def test_every_link_has_a_target() -> None:
    for page, text in PAGES.items():
        for link in LINK.findall(FENCE.sub("", text)):
            if "://" not in link:
                path, _, anchor = link.partition("#")
                target = (ROOT / page).parent / path if path else ROOT / page
                assert target.exists(), f"{page}: {link}"
                assert not anchor or anchor in anchors(target.read_text()), f"{page}: {link}"


def test_every_path_in_the_docs_exists() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\n")  # fmt: skip
    files = [f"/{name}" for name in listing]
    for page, text in PAGES.items():
        for code in CODE.findall(FENCE.sub("", text)):
            is_path = re.search(r"^[\w.{}/-]+\.(py|md|txt|toml|json|ya?ml|sh|template)$", code)
            if is_path and code not in {"uv.lock"}:
                assert any(name.endswith(f"/{code}") for name in files), f"{page}: {code}"


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_in_the_docs_exists(page: str) -> None:
    makefiles = (ROOT / "Makefile").read_text() + (ROOT / TEMPLATE / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefiles, re.MULTILINE))
    text = PAGES[page]
    scripts = "\n".join([*CODE.findall(FENCE.sub("", text)), *shell_blocks(text)])
    for target in re.findall(r"^make ([a-z-]+)", scripts, re.MULTILINE):
        assert target in targets, target


def test_every_page_is_linked() -> None:
    linked = {
        ((ROOT / page).parent / link.partition("#")[0]).resolve()
        for page, text in PAGES.items()
        for link in LINK.findall(text)
    }
    lost = {p for p in PAGES if not linked.intersection({ROOT / p, (ROOT / p).parent})}
    assert lost == {"CHANGELOG.md", "README.md"}
