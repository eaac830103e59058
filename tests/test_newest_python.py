"""The hooks on the newest supported Python, from its public image."""

import os
from pathlib import Path

import pytest
from conftest import Bake, Baked
from engine import docker

pytestmark = pytest.mark.containers

TAG = "example-service:test-newest-python"
IMAGE = """
FROM python:3.14-slim
COPY --from=ghcr.io/astral-sh/uv:0.13 /uv /uvx /usr/local/bin/
"""


@pytest.mark.usefixtures("docker_engine")
def test_newest_python_bakes_the_same_files(repository: Path, bake: Bake, tmp_path: Path) -> None:
    docker("build", "--quiet", "--tag", TAG, "-", input=IMAGE)
    docker(
        "run", "--rm", "--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp",
        "--volume", f"{repository}:/template:ro", "--volume", f"{tmp_path}:/out", TAG,
        "uvx", "--quiet", "--python", "3.14", "--constraints", "/template/constraints.txt",
        "cookiecutter", "--no-input", "--output-dir", "/out", "/template",
    )  # fmt: skip
    made = Baked(tmp_path / "example-service", {}).files()
    assert "uv.lock" in made
    assert made == bake(lock=True).files()
