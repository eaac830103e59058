"""Configuration of VS Code and of the devcontainer, and the commands in it."""

import json
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine
import pytest
from conftest import Bake, Baked
from test_bake import EVERY_OPTION, NO_OPTION
from test_deployment import SCHEMAS
from test_docs import install
from test_first_minutes import environment, serving
from test_formats import run

DEVCONTAINER = ".devcontainer/devcontainer.json"


@pytest.fixture(params=[{}, NO_OPTION, EVERY_OPTION], ids=["defaults", "nothing", "everything"])
def baked(bake: Bake, request: pytest.FixtureRequest) -> Baked:
    return bake(**request.param)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def launched(folder: Path, name: str, file: str = "") -> list[str]:
    """Return the arguments of a launch configuration."""
    listed = read(folder, ".vscode/launch.json")["configurations"]
    (one,) = [configuration for configuration in listed if configuration["name"] == name]
    assert (one["type"], one["request"]) == ("debugpy", "launch")
    arguments = [argument.replace("${file}", file) for argument in one["args"]]
    return ["-m", one["module"], *arguments]


def test_vs_code_settings_match_the_project(baked: Baked) -> None:
    settings = read(baked.path, ".vscode/settings.json")
    project = tomllib.loads((baked.path / "pyproject.toml").read_text())
    assert settings["[python]"]["editor.rulers"] == [project["tool"]["ruff"]["line-length"]]
    assert (
        settings["python.testing.pytestArgs"]
        == project["tool"]["pytest"]["ini_options"]["testpaths"]
    )
    wanted = read(baked.path, ".vscode/extensions.json")["recommendations"]
    assert settings["[python]"]["editor.defaultFormatter"] in wanted
    assert read(baked.path, DEVCONTAINER)["customizations"]["vscode"]["extensions"] == wanted
    ignored = (baked.path / ".gitignore").read_text()
    assert all(f"{name.strip('*/')}/" in ignored for name in settings["files.watcherExclude"])


def test_devcontainer_matches_the_schema(baked: Baked) -> None:
    run(baked.path, "check-jsonschema", "--schemafile", str(SCHEMAS / "devcontainer.json"),
        DEVCONTAINER)  # fmt: skip
    config = read(baked.path, DEVCONTAINER)
    assert (baked.path / ".devcontainer" / config["build"]["dockerfile"]).exists()
    assert str(config["forwardPorts"][0]) in config["portsAttributes"]


def test_devcontainer_has_the_python_of_production(bake: Bake) -> None:
    dockerfile = bake(python_version="3.12").path / ".devcontainer" / "Dockerfile"
    assert "\nFROM python:3.12-slim\n" in dockerfile.read_text()


@pytest.mark.slow
def test_launch_configurations_start(bake: Bake, tmp_path: Path) -> None:
    project = install(bake(lock=True), tmp_path)
    env = environment(tmp_path)
    settings = read(project, ".vscode/settings.json")
    python = str(project / settings["python.defaultInterpreterPath"] / "bin" / "python")
    with serving([python, *launched(project, "Serve")], project, env):
        pass
    test = launched(project, "Test this file", file="tests/test_settings.py")
    result = subprocess.run(
        [python, *test], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


@pytest.fixture
def devcontainer(project: Path) -> Iterator[str]:
    """Run the devcontainer with the project in /workspaces, as an editor does."""
    config = read(project, DEVCONTAINER)
    build = config["build"]
    tag = "example-service-devcontainer:test"
    folder = project / ".devcontainer"
    engine.docker(
        "build", "--quiet", "--tag", tag, "--file", str(folder / build["dockerfile"]),
        str(folder / build["context"]), timeout=600,
    )  # fmt: skip
    name = engine.docker("run", "--detach", "--init", tag, "sleep", "900")
    try:
        engine.docker("exec", "--user", "root", name, "mkdir", "/workspaces")
        engine.docker("cp", str(project), f"{name}:/workspaces/project")
        engine.docker("exec", "--user", "root", name, "chown", "-R", "1000", "/workspaces")
        yield name
    finally:
        engine.docker("rm", "--force", name)


@pytest.mark.thorough
@pytest.mark.containers
def test_devcontainer_migrates_and_passes_checks(devcontainer: str, project: Path) -> None:
    config = read(project, DEVCONTAINER)
    inside = ("exec", "--user", config["remoteUser"], "--workdir", "/workspaces/project")
    engine.docker(*inside, devcontainer, "sh", "-ec", config["postCreateCommand"], timeout=600)
    settings = config["customizations"]["vscode"]["settings"]
    python = settings["python.defaultInterpreterPath"]
    printed = engine.docker(
        *inside, devcontainer, "sh", "-ec",
        f"{python} -c 'import app.main'; app migrate; app check; make check; git --version",
        timeout=600,
    )  # fmt: skip
    assert "migrations  ok" in printed, printed
