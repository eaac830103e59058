"""Embedded servers whose folders belong to another user, or are files."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from clusters import copy_cluster, fast_folder
from processes import Finished, environment, run


@pytest.fixture
def project() -> Iterator[Path]:
    """Yield a working folder with its own temporary folder `tmp`.

    It is not `tmp_path`, which may be too long for the path of a Unix socket.
    """
    with TemporaryDirectory(dir=fast_folder(), prefix="dev-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        yield folder


def migrate(project: Path) -> Finished:
    env = environment("", ENVIRONMENT="development", TMPDIR=str(project / "tmp"))
    return run(["app", "migrate"], env, project)


def failing_line(project: Path) -> str:
    """Run `app migrate`, which must fail, and return its one line on stderr."""
    result = migrate(project)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    return line


def test_lock_file_of_another_user_is_not_opened(project: Path) -> None:
    copy_cluster(project / ".data" / "postgres")
    (project / "tmp" / ".lockfile").mkdir()  # not even root can open a folder as a file
    result = migrate(project)
    assert result.returncode == 0, result.stderr


def test_runtime_folder_that_cannot_be_created_fails_with_one_line(project: Path) -> None:
    file = project / "tmp" / f"pg-{os.getuid()}"
    file.touch()
    line = failing_line(project)
    assert line.startswith("Error: PostgreSQL cannot be embedded: ")
    assert str(file) in line


def test_paths_that_are_too_long_for_a_socket_fail_with_one_line(project: Path) -> None:
    folder = project / ("long" * 25)
    (folder / "tmp").mkdir(parents=True)
    copy_cluster(folder / ".data" / "postgres")
    line = failing_line(folder)
    assert line.startswith("Error: PostgreSQL did not start in .data/postgres: ")
    assert line.endswith("set TMPDIR to a folder with a shorter path.")


@pytest.mark.parametrize(
    "name",
    [
        ".data",
        ".data/postgres",
        ".data/valkey",  # option: redis
    ],
)
def test_data_folder_that_cannot_be_used_fails_with_one_line(project: Path, name: str) -> None:
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).touch()
    line = failing_line(project)
    assert line.startswith("Error: .data cannot be used: ")
    assert name in line
