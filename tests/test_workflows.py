"""The pipelines of a baked service, looked at by linters, and run: see pipelines.py."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Bake
from test_bake import CHOICES

SITE = "https://github.com/Acme/example-service/actions/runs/42"
ANSWERS = [
    dict(zip(("ci", "deploy", "worker"), row, strict=True))
    for row in itertools.product(CHOICES["ci"], CHOICES["deploy"], CHOICES["worker"])
]


def name_of(answers: dict[str, object]) -> str:
    return "-".join(map(str, answers.values()))


# --- as they are written --------------------------------------------------------------------------


def tool(folder: Path, name: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("answers", ANSWERS, ids=name_of)
def test_the_files_are_those_of_the_answers_and_are_clean(
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
        tool(baked.path, "zizmor", "--offline", "--quiet", ".")
        tool(baked.path, "check-jsonschema", "--builtin-schema", "vendor.github-workflows",
             *workflows)  # fmt: skip
        tool(baked.path, "check-jsonschema", "--builtin-schema", "vendor.dependabot",
             ".github/dependabot.yml")  # fmt: skip
    if ".gitlab-ci.yml" in files:
        tool(baked.path, "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci",
             "--data-transform", "gitlab-ci", ".gitlab-ci.yml")  # fmt: skip
    for path in files:
        text = (baked.path / path).read_text()
        for script in re.findall(r"scripts/\w+\.py", text):
            assert (baked.path / script).exists(), f"{path} runs {script}"
