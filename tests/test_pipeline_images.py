"""The image jobs of the pipelines, on a Docker engine; pipelines.py runs their commands."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import engine
import pytest
from conftest import Bake
from pipelines import GitHub, GitLab, Job, Machine

pytestmark = [
    pytest.mark.containers,
    pytest.mark.thorough,
    pytest.mark.usefixtures("docker_engine"),
]

FAILS_ON_SIGTERM = "#!/bin/sh\ntrap 'exit 7' TERM\napp serve --migrate &\nwait\n"


@pytest.fixture
def new_machine(
    bake: Bake,
    tmp_path: Path,
) -> Iterator[Callable[..., Machine]]:
    """Provide a machine with a baked project, and remove its containers afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"

    def make(ci: str) -> Machine:
        repository = bake(lock=True, ci=ci).copy_to(tmp_path / "repository")
        machine = Machine(tmp_path / "machine", repository, sys.executable)
        machine.git("init", "--quiet", "--initial-branch", "main")
        machine.stand_in("apk")
        machine.overrides = {"PORT": str(engine.free_port()), "COMPOSE_PROJECT_NAME": name}
        # The docker command needs its engine and its plugins.
        config = {"DOCKER_CONFIG": str(Path.home() / ".docker")}
        given = {k: v for k, v in os.environ.items() if k.startswith("DOCKER_")}
        machine.overrides |= config | given
        return machine

    yield make
    compose = str(tmp_path / "repository" / "compose.yaml")
    engine.docker("compose", "--file", compose, "--project-name", name,
                  "--profile", "*", "down", "--volumes", "--timeout", "1")  # fmt: skip


def build(machine: Machine, ci: str) -> Job:
    machine.commit()
    if ci == "github":
        return GitHub(machine).run("ci.yml", only={"image"})["image"]
    return GitLab(machine).run("build-image")["build-image"]


@pytest.mark.parametrize("ci", ["github", "gitlab"])
def test_image_job_builds_tests_and_saves_the_image(
    new_machine: Callable[..., Machine], ci: str
) -> None:
    machine = new_machine(ci)
    job = build(machine, ci)
    assert job.result == "success", job.output
    assert f"{machine.git('rev-parse', 'HEAD')} works" in job.output
    (kept,) = (machine.folder / "artifacts").rglob("image.tar")
    assert kept.stat().st_size > 50 * 1_000_000
    if ci == "github":
        scans = [given for name, given in machine.used if name == "aquasecurity/trivy-action"]
        assert [scan.get("exit-code") for scan in scans] == ["1", None]
        assert {scan["image-ref"] for scan in scans} == {"example-service:local"}


def test_image_with_failing_shutdown_fails_the_job(
    new_machine: Callable[..., Machine],
) -> None:
    machine = new_machine("gitlab")
    (machine.repository / "scripts" / "startup.sh").write_text(FAILS_ON_SIGTERM)
    job = build(machine, "gitlab")
    assert job.result == "failure", job.output
    assert "works" in job.output, "the smoke test passed"
    assert "listening" in job.output, "the job prints the logs"
    assert not list((machine.folder / "artifacts").rglob("image.tar"))


def test_image_with_severe_vulnerability_is_not_saved(new_machine: Callable[..., Machine]) -> None:
    machine = new_machine("github")
    machine.fails = "trivy"
    job = build(machine, "github")
    assert job.result == "failure", job.output
    assert "a severe vulnerability" in job.output
    assert not list((machine.folder / "artifacts").rglob("image.tar"))
