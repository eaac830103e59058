"""Configuration of VS Code and of the devcontainer, and the commands in it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import engine
import pytest
from conftest import Bake, Baked
from debug_adapter import DebugClient
from engine import Stack, ask, wait_until
from test_bake import EVERY_OPTION, NO_OPTION
from test_containers import FEW
from test_deployment import SCHEMAS
from test_docs import install, shell_blocks
from test_first_minutes import environment, serving
from test_formats import run

DEVCONTAINER = ".devcontainer/devcontainer.json"


@pytest.fixture(params=[{}, NO_OPTION, EVERY_OPTION], ids=["defaults", "nothing", "everything"])
def baked(bake: Bake, request: pytest.FixtureRequest) -> Baked:
    return bake(**request.param)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def configuration_of(folder: Path, name: str) -> dict[str, Any]:
    text = json.dumps(read(folder, ".vscode/launch.json")["configurations"])
    listed = json.loads(text.replace("${workspaceFolder}", str(folder)))
    (one,) = [configuration for configuration in listed if configuration["name"] == name]
    return dict(one)


def tasks_of(folder: Path) -> dict[str, list[str]]:
    """Return the command of each task."""
    tasks = read(folder, ".vscode/tasks.json")["tasks"]
    assert {task["type"] for task in tasks} == {"process"}, "a shell differs between systems"
    commands = {task["label"]: [task["command"], *task["args"]] for task in tasks}
    assert len(commands) == len(tasks)
    return commands


def launched(folder: Path, name: str, file: str = "") -> list[str]:
    """Return the arguments of a launch configuration."""
    one = configuration_of(folder, name)
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


def test_tasks_and_inputs_that_vs_code_names_exist(baked: Baked) -> None:
    tasks = tasks_of(baked.path)
    launch = read(baked.path, ".vscode/launch.json")["configurations"]
    before = {one["preLaunchTask"] for one in launch if "preLaunchTask" in one}
    assert before == {"Containers: debug"}
    assert before <= set(tasks)
    inputs = {one["id"] for one in read(baked.path, ".vscode/tasks.json")["inputs"]}
    assert set(re.findall(r"\$\{input:(\w+)\}", json.dumps(tasks))) == inputs
    files = {name for command in tasks.values() for name in command if name.endswith(".yaml")}
    assert all((baked.path / name).exists() for name in files)
    assert len(files) == 5


@pytest.mark.slow
def test_launch_configurations_start(bake: Bake, tmp_path: Path) -> None:
    project = install(bake(lock=True), tmp_path)
    env = environment(tmp_path)
    settings = read(project, ".vscode/settings.json")
    python = str(project / settings["python.defaultInterpreterPath"] / "bin" / "python")
    with serving([python, *launched(project, "Serve")], project, env):
        pass
    test = launched(project, "Test this file", file="tests/infrastructure/test_settings.py")
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


TESTS = ("Containers: test", "Containers: remove the containers of the tests")
LOGS = "Containers: logs"  # it follows them until the user ends it


@pytest.fixture
def in_editor(project: Path, tmp_path: Path) -> Iterator[Stack]:
    """Provide a project as an editor opens it, with free ports and few tests."""
    folder = tmp_path / "service"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".venv"))
    for test in (folder / "tests").rglob("test_*.py"):
        if test.name not in FEW:
            test.unlink()
    ports = ("DEBUG_PORT", "POSTGRES_PORT", "REDIS_PORT")
    variables = {name: str(engine.free_port()) for name in ports}
    variables |= {"HOST_UID": str(os.getuid()), "HOST_GID": str(os.getgid())}
    with Stack(folder, ("compose.yaml", "compose.dev.yaml"), variables) as stack:
        yield stack


@pytest.mark.containers
def test_tasks_run_and_a_debugger_attaches_to_the_container(in_editor: Stack) -> None:
    folder = in_editor.folder
    env = {k: v for k, v in in_editor.environment.items() if not k.startswith("COMPOSE_")}
    tasks = tasks_of(folder)
    printed = {}
    with Stack(folder, ("compose.test.yaml",)) as tests:
        for label in [label for label in tasks if label != LOGS]:
            name = tests.name if label in TESTS else in_editor.name
            command = [part.replace("${input:change}", "add notes") for part in tasks[label]]
            result = subprocess.run(
                command, cwd=folder, env=env | {"COMPOSE_PROJECT_NAME": name}, capture_output=True,
                text=True, check=False, timeout=600,
            )  # fmt: skip
            assert result.returncode == 0, f"{label}\n{result.stdout}\n{result.stderr}"
            printed[label] = result.stdout
            if label == "Containers: debug":
                assert_debugger_stops_at_a_breakpoint(in_editor)
                assert_shows_logs(in_editor, tasks[LOGS])
                # A second start changes nothing, so it does not end the debugger's session.
                before = in_editor.containers("app")
                assert in_editor.make("up-debug").returncode == 0
                assert in_editor.containers("app") == before
                assert_restart_serves_changed_source(in_editor)
    assert list((folder / "src/app/migrations/versions").glob("*_add_notes.py"))
    assert "rows added" in printed["Containers: seed"]
    assert re.search(r"^migrations +ok", printed["Containers: check the service"], re.MULTILINE)
    assert " passed" in printed["Containers: test"]
    assert in_editor.compose("ps", "--all", "--quiet") == ""
    blocks = shell_blocks((folder / "docs" / "containers.md").read_text())
    assert tasks["Containers: debug"] in [shlex.split(block) for block in blocks]


def assert_debugger_stops_at_a_breakpoint(stack: Stack) -> None:
    """Attach as VS Code does, and serve a request with a breakpoint in its handler."""
    configuration = configuration_of(stack.folder, "Attach to the container")
    assert (configuration["type"], configuration["request"]) == ("debugpy", "attach")
    assert configuration["connect"] == {"host": "127.0.0.1", "port": 5678}
    debug = (stack.folder / "compose.debug.yaml").read_text()
    assert "127.0.0.1:${DEBUG_PORT:-5678}:5678" in debug
    file = stack.folder / "src" / "app" / "web" / "health.py"
    line = file.read_text().splitlines().index("        return Live()") + 1
    port = int(stack.variables["DEBUG_PORT"])
    with DebugClient("127.0.0.1", port) as debugger, ThreadPoolExecutor(1) as executor:
        debugger.attach(configuration, (file, line))
        answer = executor.submit(ask, f"{stack.url}/health/live", timeout=60)
        stopped = debugger.event("stopped")
        assert stopped["reason"] == "breakpoint"
        assert not answer.done()
        thread = {"threadId": stopped["threadId"]}
        (frame,) = debugger.request("stackTrace", {**thread, "levels": 1})["stackFrames"]
        assert (frame["source"]["path"], frame["line"]) == (str(file), line)
        debugger.request("continue", thread)
        assert answer.result(60).status == 200


def assert_restart_serves_changed_source(stack: Stack) -> None:
    file = stack.folder / "src" / "app" / "web" / "health.py"
    text = file.read_text()
    file.write_text(text.replace('"/health/live"', '"/health/alive"'))
    stack.compose("restart", "app")
    wait_until(lambda: ask(f"{stack.url}/health/alive").status == 200, seconds=60)
    file.write_text(text)


def assert_shows_logs(stack: Stack, command: list[str]) -> None:
    log = stack.folder / "logs.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=stack.folder, env=stack.environment, stdout=out)
    try:
        wait_until(lambda: "listening" in log.read_text(), seconds=30)
    finally:
        process.terminate()
        process.wait(30)
        log.unlink()
