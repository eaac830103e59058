"""The repository's own pages: links, paths and commands.

Tests run the commands, or CONTRIBUTING.md has the reason why none does.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import QUESTIONS, ROOT, TEMPLATE, Bake
from test_docs import (
    A_CLONE,
    ACCOUNT,
    CODE,
    FENCE,
    LINK,
    NotAsWritten,
    anchors,
    assert_tests_exist,
    blocks_of,
    kind_of,
    shell_blocks,
    targets_of,
)
from test_docs import BLOCKS as BLOCKS_OF_THE_SERVICE

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
THEMSELVES = NotAsWritten(
    "the tests cannot run themselves; `.github/workflows/ci.yml` runs these commands",
    "tests/test_maintenance.py::test_ci_workflow_runs_the_documented_commands",
)
MEASURED = NotAsWritten(
    "takes minutes or needs Docker; tests write the page from given measurements",
    "tests/test_benchmarks.py::test_page_of_the_benchmark_keeps_the_sections_of_other_commands",
)
RESOLVED = NotAsWritten(
    "resolves all packages anew; a test runs its script on two packages",
    "tests/test_maintenance.py::test_refreshed_constraints_respect_bounds_and_keep_markers",
)
ANYWHERE = NotAsWritten(
    "takes an hour; `.github/workflows/anywhere.yml` runs each row every week",
    "tests/test_maintenance.py::test_every_row_of_test_anywhere_runs_every_week",
)
MADE = "tests/test_maintenance.py::test_make_targets_lint_fix_list_and_clean"
DEMO = "tests/test_first_minutes.py::test_make_demo_with_only_python_serves_and_leaves_nothing"
# The test that runs a block of commands, by page and first line, and of a make target.
BLOCKS: dict[tuple[str, str], str | NotAsWritten] = {
    ("README.md", "uvx cookiecutter gh:org/template"): NotAsWritten(
        A_CLONE, "tests/test_first_minutes.py::test_readme_commands_bake_and_serve"
    ),
    ("README.md", "make demo"): DEMO,
    ("CONTRIBUTING.md", f"cd '{TEMPLATE}'"): NotAsWritten(
        "instead of all tests, those run that no baked service runs",
        "tests/test_baked_service.py::test_template_folder_passes_checks_and_tests",
    ),
    ("CONTRIBUTING.md", "uv venv"): NotAsWritten(
        "a stand-in for uv records its arguments; `.github/workflows/ci.yml` runs the same on "
        "macOS and Windows",
        "tests/test_maintenance.py::test_ci_workflow_runs_the_documented_commands",
    ),
    ("CONTRIBUTING.md", 'sudo env "PATH=$PATH" make test-anywhere'): ANYWHERE,
    ("CONTRIBUTING.md", "make constraints"): RESOLVED,
    ("CONTRIBUTING.md", "git tag v1.2.0"): (
        "tests/test_maintenance.py::test_release_is_proposed_merged_tagged_and_published"
    ),
    ("docs/adding-an-option.md", "make check"): NotAsWritten(
        "instead of all tests, those run that look at options",
        "tests/test_adding_an_option.py::test_option_added_by_the_docs_page_passes_all_checks",
    ),
    ("Makefile", "make demo"): DEMO,
    **dict.fromkeys(
        [("Makefile", f"make {t}") for t in ("test", "test-fast", "test-containers")], THEMSELVES
    ),
    ("Makefile", "make test-kubernetes"): NotAsWritten(
        "the tests cannot run themselves; `.ci/run` runs this command on a cluster",
        "tests/test_maintenance.py::test_ci_run_stops_the_cluster_that_it_started",
    ),
    **dict.fromkeys([("Makefile", f"make {t}") for t in ("bench", "soak", "results")], MEASURED),
    **dict.fromkeys([("Makefile", f"make {t}") for t in ("help", "check", "fix", "clean")], MADE),
    ("Makefile", "make constraints"): RESOLVED,
    ("Makefile", "make test-anywhere"): ANYWHERE,
}


def test_every_command_block_has_a_test() -> None:
    found = {
        (page, block.splitlines()[0])
        for page, text in PAGES.items()
        for block in shell_blocks(text)
    }
    assert found | {("Makefile", f"make {t}") for t in targets_of(ROOT)} == set(BLOCKS)
    assert_tests_exist(BLOCKS)


def table_below(heading: str, page: str = "CONTRIBUTING.md") -> list[list[str]]:
    """Return the cells of the table in a section, without its head."""
    section = re.split(rf"^#+ {heading}$", PAGES[page], flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    _, *rows = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
    return [row.split(" | ") for row in rows]


def railway_pages(bake: Bake) -> set[str]:
    folder = bake(deploy="railway").path
    return {key[0] for key, block in blocks_of(folder).items() if kind_of(key, block) == ACCOUNT}


def test_commands_without_a_test_are_listed_with_the_reason_and_the_closest_test(
    bake: Bake,
) -> None:
    expected: dict[tuple[bool, str, str], tuple[set[str], set[str]]] = {
        (True, ACCOUNT.reason, ACCOUNT.test): (railway_pages(bake), {"railway"})
    }
    for is_of_service, blocks in ((False, BLOCKS), (True, BLOCKS_OF_THE_SERVICE)):
        for (page, command), how in blocks.items():
            if isinstance(how, NotAsWritten):
                key = (is_of_service, how.reason, how.test)
                pages, commands = expected.setdefault(key, (set(), set()))
                pages.add(page)
                commands.add(command)
    listed = {
        (pages.startswith("service: "), reason, CODE.findall(test)[0]): (
            set(CODE.findall(pages)),
            set(CODE.findall(commands)),
        )
        for pages, commands, reason, test in table_below("Commands without a test")
    }
    assert listed == {
        (is_of_service, reason, test.partition("::")[2]): named
        for (is_of_service, reason, test), named in expected.items()
    }


def test_every_job_of_the_pipelines_is_run_by_a_test() -> None:
    """GitHub's jobs run by `only={...}` or as a whole workflow, GitLab's by their names."""
    tests = "".join(
        (ROOT / "tests" / name).read_text(encoding="utf-8")
        for name in ("test_pipelines.py", "test_pipeline_images.py")
    )
    arguments = " ".join(re.findall(r"\.run\(([^()]*)\)", tests))
    gitlab = yaml.safe_load((ROOT / TEMPLATE / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    jobs = {name for name, job in gitlab.items() if isinstance(job, dict) and "stage" in job}
    jobs |= {name for name, job in gitlab.items() if isinstance(job, dict) and "extends" in job}
    jobs = {name for name in jobs if not name.startswith(".")}
    ci = yaml.safe_load((ROOT / TEMPLATE / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert {"check", "scan", "rollback", "image"} <= (all_jobs := jobs | set(ci["jobs"]))
    assert {job for job in all_jobs if f'"{job}"' not in arguments} == set()
    assert '"rollback.yml"' in arguments, "it and ci.yml call deploy.yml"


def test_stand_ins_of_the_pipelines_are_listed() -> None:
    tests = "".join(
        (ROOT / "tests" / name).read_text(encoding="utf-8")
        for name in ("pipelines.py", "test_pipelines.py", "test_pipeline_images.py")
    )
    programs = set(re.findall(r'stand_in\("(\w+)"', tests))
    actions = set(re.findall(r'^    "([\w-]+/[\w-]+)": ', tests, re.MULTILINE))
    assert {"gh", "npm", "railway", "trivy"} <= programs
    assert "aquasecurity/trivy-action" in actions
    listed = {name for cells in table_below("Stand-ins") for name in CODE.findall(cells[0])}
    assert programs | actions == listed


@pytest.mark.posix
def test_command_for_scripts_bakes_the_given_answers(
    repository: Path, home: Path, tmp_path: Path, bake: Bake
) -> None:
    (command,) = re.findall(r"^In scripts: `(.*)`\.$", PAGES["README.md"], re.MULTILINE)
    uvx, program, template, *given = shlex.split(command)
    assert (uvx, program, template) == ("uvx", "cookiecutter", "gh:org/template")
    subprocess.run(
        [sys.executable, "-m", program, "--config-file", home, repository, *given],
        cwd=tmp_path, env={**os.environ, "PATH": ""}, check=True, capture_output=True,
    )  # fmt: skip
    expected = bake(project_name="Order Service", project_slug="order-service", redis=False)
    written = {
        path.relative_to(tmp_path / "order-service").as_posix(): path.read_bytes()
        for path in (tmp_path / "order-service").rglob("*")
        if path.is_file()
    }
    assert written == expected.files()


def test_embedded_servers_have_the_versions_of_the_readme() -> None:
    """test_docs.py looks at the version of PostgreSQL that `make dev` has started."""
    (valkey,) = re.findall(r"PostgreSQL 18 and Valkey (\d+) come as", PAGES["README.md"])
    constraints = (ROOT / TEMPLATE / "constraints.txt").read_text(encoding="utf-8")
    assert f"\nvalkeylite=={valkey}." in constraints


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
    targets = {*targets_of(ROOT), *targets_of(ROOT / TEMPLATE)}
    text = PAGES[page]
    scripts = "\n".join([*CODE.findall(FENCE.sub("", text)), *shell_blocks(text)])
    for target in re.findall(r"^make ([a-z-]+)", scripts, re.MULTILINE):
        assert target in targets, target


def test_every_page_is_linked() -> None:
    linked = {
        ((ROOT / page).parent / link.partition("#")[0]).resolve()
        for page, text in PAGES.items()
        for link in LINK.findall(text)
        if not link.startswith("#")
    }
    lost = {p for p in PAGES if not linked.intersection({ROOT / p, (ROOT / p).parent})}
    assert lost == {"CHANGELOG.md", "README.md"}
