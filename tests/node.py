"""Programs of Node packages, run by npx with a pinned Node version. Debian's Node is older."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT
from filelock import FileLock

NODE = "node@24.21.0"

needs_npx = pytest.mark.skipif(
    not shutil.which("npx") and os.environ.get("CI") != "true",
    reason="Node packages need npx, of Debian's package npm; CI fails without it",
)


def npx(*command: str | Path, package: str, folder: Path) -> str:
    """Run a program of a Node package in a folder, and return its output.

    Raises:
        AssertionError: the program failed. The message has its output.
    """
    packages = ("--package", NODE, "--package", package)
    return run(["npx", "--yes", *packages, "--", *command], folder)


def unpack(package: str, folder: Path) -> Path:
    """Return a folder with the files of a Node package, which is not installed."""
    run(["npm", "pack", "--silent", package], folder)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / "package"


def run(command: list[str | Path], folder: Path) -> str:
    """Run a command that may install Node packages, and return its output.

    Raises:
        AssertionError: the command failed. The message has its output.
    """
    tools = ROOT / ".tools"
    tools.mkdir(exist_ok=True)
    env = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    with FileLock(tools / "npx.lock"):  # parallel installations corrupt npm's cache
        result = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False
        )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
