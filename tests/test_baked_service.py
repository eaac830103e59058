"""Baked services, installed from their locks: their own checks and tests.

Every pair of answers is baked, locked and installed. Some answers change only words, such as the
license. Identical code on the same interpreter is checked and tested once. A table at the end lists
the projects.
"""

import hashlib
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import TEMPLATE, Bake, Baked
from test_bake import CHOICES, COMBINATIONS, EVERY_OPTION, NO_OPTION, OPTIONS, WORDS

from fastapi_service_answers import NEEDS

pytestmark = [pytest.mark.slow, pytest.mark.alone]

TEMPLATE_FOLDER = Path(__file__).parent.parent / TEMPLATE
# What a test file uses whose outcome may depend on the options: a marked line, the application with
# all routes and middleware, or the models and migrations of every feature.
OF_OPTIONS = re.compile(
    r"# option: |\b(create_app|client|service|app\.main)\b|\b(load_models|load_revisions)\(\)"
)
QUICK_ROWS = 2  # together they have each option on and off
LAST_LINE = re.compile(r"\d+ passed.* in [\d.]+s")


def covering_rows() -> list[dict[str, object]]:
    """Return few rows of answers that cover every valid pair of options, and every word.

    A greedy search: the next row covers most of the missing pairs, or is a random one of several.
    Answers that change no code rotate: version, license, pipeline, platform.
    """
    # Of 6,000 seeds the one with the fewest rows whose first two have each option on and off.
    generator = random.Random(89)  # noqa: S311 - no secret
    rotated = [*WORDS[0], "ci", "deploy"]
    options = [option for option in OPTIONS if option not in rotated]
    of_code = {tuple(row[option] for option in options) for row in COMBINATIONS}
    candidates = [dict(zip(options, values, strict=True)) for values in sorted(of_code, key=repr)]
    of_candidates = [pairs_of(row) for row in candidates]
    missing = set().union(*of_candidates)
    rows: list[dict[str, object]] = []
    while missing:
        gains = [len(missing & pairs) for pairs in of_candidates]
        best = generator.choice([n for n, gain in enumerate(gains) if gain == max(gains)])
        missing -= of_candidates[best]
        taken = {name: CHOICES[name][len(rows) % len(CHOICES[name])] for name in rotated}
        rows.append({**candidates[best], **taken})
    return rows


def pairs_of(row: dict[str, object]) -> set[tuple[tuple[str, object], tuple[str, object]]]:
    return set(itertools.combinations(row.items(), 2))


@dataclass
class Report:
    """The checks and tests of each project, printed at the end."""

    lines: list[str] = field(default_factory=list)
    outcomes: dict[tuple[str, ...], str] = field(default_factory=dict)

    def once(self, kind: str, of: tuple[str, ...], do: Callable[[], str]) -> str:
        """Call `do`, unless it was called for the same code, and return the outcome."""
        if (kind, *of) in self.outcomes:
            return f"{kind} as above"
        self.outcomes[kind, *of] = do()
        return self.outcomes[kind, *of]


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    report = Report()
    started = time.monotonic()
    yield report
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join(report.lines))
        print(f"{len(report.lines)} projects, {time.monotonic() - started:.0f} s")


def find_python(version: str) -> str | None:
    """Return the path of an installed interpreter. Nothing is downloaded."""
    command = ["uv", "python", "find", "--no-python-downloads", "--no-project", version]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a project, without the environment of these tests."""
    env = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "DATABASE_URL"}}
    result = subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}\n{result.stderr}"
    return result


Install = Callable[[Path, str], None]


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Install:
    """install(project, python) into an environment that projects with the same Python share.

    uv installs only the differences.
    """

    def sync(project: Path, python: str) -> None:
        shared = tmp_path_factory.getbasetemp() / f"environment-{abs(hash(python))}"
        monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", str(shared))
        run(
            project, "uv", "sync", "--quiet", "--locked", "--no-python-downloads",
            "--python", python,
        )  # fmt: skip

    return sync


def check(project: Path) -> str:
    run(project, "make", "check")
    return "checked"


def run_tests(project: Path, *only: str) -> str:
    """Run these tests, or all, and return the summary line of pytest."""
    if not only:
        return run_make(project, "test")
    return summary_of(run(project, "uv", "run", "pytest", "-n", "4", *only).stdout)


def check_and_test(project: Path, *only: str) -> str:
    """Check a project while its tests run, and return both outcomes."""
    return at_once(lambda: check(project), lambda: run_tests(project, *only))


def at_once(*steps: Callable[[], str]) -> str:
    """Run steps at the same time, and return their outcomes: none of them uses both cores."""
    with ThreadPoolExecutor(len(steps)) as executor:
        return ", ".join([*executor.map(lambda step: step(), steps)])


def run_make(project: Path, target: str) -> str:
    """Run a target of the service's Makefile, and return the summary line of pytest."""
    return f"make {target}: {summary_of(run(project, 'make', target).stdout)}"


def summary_of(output: str) -> str:
    match = LAST_LINE.search(output)
    assert match, output
    return match[0]


def code_of(baked: Baked) -> str:
    """Return a digest of the files that affect the tests."""
    digest = hashlib.sha256()
    for path, content in baked.files().items():
        if path in {"LICENSE", "README.md"}:
            continue
        if path == "pyproject.toml":
            content = re.sub(
                rb'^(license|python_version) = ".*"$', b"", content, flags=re.MULTILINE
            )
        digest.update(path.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


def option_tests(project: Path) -> list[str]:
    """Return the tests of features, and the tests of infrastructure that depend on options.

    A file in the folder of a package with marked lines depends on them, too.
    """
    tests = TEMPLATE_FOLDER / "tests" / "infrastructure"
    found = [
        file.relative_to(TEMPLATE_FOLDER).as_posix()
        for file in sorted(tests.rglob("test_*.py"))
        if OF_OPTIONS.search(file.read_text(encoding="utf-8"))
        or any(
            "# option: " in source.read_text(encoding="utf-8")
            for source in (TEMPLATE_FOLDER / "src/app" / file.parent.relative_to(tests)).glob(
                "*.py"
            )
        )
    ]
    return ["tests/features", *(file for file in found if (project / file).exists())]


def rows_of_pairs() -> list[Any]:
    """Return the rows for a test, each with the tests that its service runs.

    A row with an answer that no earlier row has runs every test. Processes behave alike in the
    other rows: the first of these runs `make test-fast`, and the others only tests of options.
    """
    targets = iter(["test-fast"])
    rows, known = [], set[tuple[str, object]]()
    for number, row in enumerate(covering_rows()):
        target = next(targets, "") if known.issuperset(row.items()) else "test"
        known.update(row.items())
        name = "-".join(str(answer) for answer in row.values())
        marks = [pytest.mark.thorough] * (number >= QUICK_ROWS)
        rows.append(pytest.param(row, target, id=name, marks=marks))
    return rows


@pytest.mark.parametrize(("row", "target"), rows_of_pairs())
def test_every_pair_of_answers_passes_checks_and_tests(
    bake: Bake, install: Install, report: Report, row: dict[str, object], target: str
) -> None:
    baked = bake(lock=True, **row)
    assert (baked.path / "uv.lock").exists()
    code, wanted = code_of(baked), str(row["python_version"])
    python = find_python(wanted) or sys.executable
    install(baked.path, python)

    def test() -> str:
        if target:
            return run_make(baked.path, target)
        return f"tests of options: {run_tests(baked.path, *option_tests(baked.path))}"

    outcome = at_once(
        lambda: report.once("checked", (code, wanted), lambda: check(baked.path)),
        lambda: report.once("tested", (code, python), test),
    )
    version = run(baked.path, "uv", "run", "--no-sync", "python", "-V").stdout.strip()
    note = "" if wanted in version else f" (no {wanted} on this machine)"
    report.lines.append(f"{row} on {version}{note}: {outcome}")


def test_tests_of_options_are_all_but_those_of_code_without_options() -> None:
    tests = set(option_tests(TEMPLATE_FOLDER))
    assert "tests/infrastructure/db/test_migrate.py" in tests, "migrations are those of the options"
    assert "tests/infrastructure/jobs/test_attempts.py" in tests, "the package has marked lines"
    assert "tests/infrastructure/test_settings.py" in tests
    assert "tests/infrastructure/db/test_url.py" not in tests


ONE_OPTION = {
    f"{option}={answer}": {
        **NO_OPTION,
        option: answer,
        **dict.fromkeys(NEEDS.get(option, NEEDS.get(f"{option}={answer}", ()))[:1], True),
    }
    for option in OPTIONS
    for answer in CHOICES[option]
    if answer != NO_OPTION[option]
}
ROWS = {"everything": EVERY_OPTION, "nothing": NO_OPTION, **ONE_OPTION}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_locked_versions_are_those_of_the_constraints(bake: Bake, row: dict[str, object]) -> None:
    constraints = (bake(**row).path / "constraints.txt").read_text()
    wanted = set(re.findall(r"^([\w-]+)==(\S+)$", constraints, re.MULTILINE))
    lock = (bake(lock=True, **row).path / "uv.lock").read_text()
    locked = set(re.findall(r'name = "([\w-]+)"\nversion = "(.+)"\nsource = .*registry', lock))
    assert locked == wanted, (
        "a package of an option without a marker, or a package without a version"
    )


def test_bake_without_uv_names_the_command_that_creates_the_lock(
    bake: Bake, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(bake().path, project)
    run(project, "uv", "add", "--no-sync", "--constraints", "constraints.txt", "fastapi")
    assert (project / "uv.lock").read_text() == (bake(lock=True).path / "uv.lock").read_text()
    assert (project / "pyproject.toml").read_text() == (bake().path / "pyproject.toml").read_text()


def test_template_folder_passes_checks_and_tests(
    repository: Path, tmp_path: Path, install: Install, report: Report
) -> None:
    project = tmp_path / TEMPLATE
    shutil.copytree(repository / TEMPLATE, project)
    run(project, "uv", "add", "--no-sync", "--constraints", "constraints.txt", "fastapi")
    install(project, sys.executable)
    # Baked services run the other tests. Only here both queue libraries are installed.
    outcome = check_and_test(
        project,
        "tests/infrastructure/jobs",
        "tests/features/webhooks",
        "tests/infrastructure/tracing/test_tracing_jobs.py",
    )
    report.lines.append(f"the template folder itself: {outcome}")
