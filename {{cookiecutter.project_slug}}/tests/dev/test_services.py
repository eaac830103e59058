"""Embedded servers where a folder that they need is of another user, or is no folder."""

import os
import subprocess
from pathlib import Path

import pytest

from processes import APP, environment


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder to run in, with a temporary folder `tmp` of its own."""
    (tmp_path / "tmp").mkdir()
    return tmp_path


def migrate(project: Path) -> subprocess.CompletedProcess[str]:
    env = environment("", ENVIRONMENT="development", TMPDIR=str(project / "tmp"))
    return subprocess.run(
        [*APP, "migrate"], cwd=project, env=env, capture_output=True, text=True, check=False
    )


def refusal(project: Path) -> str:
    """The one line with which `app migrate` fails."""
    result = migrate(project)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    return line


def test_lock_of_another_user_in_the_temporary_folder_is_not_opened(project: Path) -> None:
    (project / "tmp" / ".lockfile").mkdir()  # root cannot open a folder either
    result = migrate(project)
    assert result.returncode == 0, result.stderr


def test_runtime_folder_that_cannot_be_made_is_one_clear_line(project: Path) -> None:
    file = project / "tmp" / f"embedded-postgres-{os.getuid()}"
    file.touch()
    line = refusal(project)
    assert line.startswith("error: PostgreSQL cannot be embedded: ")
    assert str(file) in line


@pytest.mark.parametrize(
    "name",
    [
        ".data",
        ".data/postgres",
        ".data/valkey",  # option: redis
    ],
)
def test_data_folder_that_cannot_be_used_is_one_clear_line(project: Path, name: str) -> None:
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).touch()
    line = refusal(project)
    assert line.startswith("error: .data cannot be used: ")
    assert name in line
