"""Linters and schemas for files of a bake that other programs read."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Bake, Baked
from test_bake import NO_OPTION

VOLUMES = {"cache", "database"}  # keys that may be empty


def run(folder: Path, tool: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name(tool)), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(params=[{}, NO_OPTION], ids=["defaults", "bare"])
def baked(bake: Bake, request: pytest.FixtureRequest) -> Baked:
    return bake(**request.param)


def test_dockerfiles_pass_hadolint(baked: Baked) -> None:
    run(baked.path, "hadolint", "Dockerfile", "proxy/Dockerfile", ".devcontainer/Dockerfile")


def test_shell_scripts_pass_shellcheck(baked: Baked, repository: Path) -> None:
    run(baked.path, "shellcheck", *map(str, baked.path.rglob("*.sh")))
    run(repository, "shellcheck", ".ci/run")


def test_compose_files_match_the_schema(baked: Baked) -> None:
    files = sorted(path.name for path in baked.path.glob("compose*.yaml"))
    names = ("debug.", "dev.", "servers.", "test.", "")
    assert files == [f"compose.{name}yaml" for name in names]
    run(baked.path, "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)


def test_yaml_without_options_has_no_empty_keys(bake: Bake) -> None:
    """A fence around every entry of a key leaves the key without a value."""
    for path in bake(**NO_OPTION).path.rglob("*.y*ml"):
        stack = [yaml.safe_load(path.read_text())]
        while stack:
            node = stack.pop()
            if isinstance(node, dict):
                stack += node.values()
                empty = {key for key, value in node.items() if value is None}
                assert empty <= VOLUMES, path
            elif isinstance(node, list):
                stack += node
