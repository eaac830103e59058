"""kubectl: it renders kustomizations without a cluster."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

# .ci/run installs it there if the one of the machine is too old for components.
INSTALLED = ROOT / ".tools" / "bin"
PATH = os.pathsep.join([str(INSTALLED), os.environ["PATH"]])


def version_of_kustomize() -> int:
    """Return the major version of kubectl's Kustomize; 0 without kubectl or before 1.23."""
    command = ["kubectl", "version", "--client", "--output=yaml"]
    try:
        result = subprocess.run(
            command, env={**os.environ, "PATH": PATH}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return 0
    version = (yaml.safe_load(result.stdout) or {}).get("kustomizeVersion", "v0")
    return int(version.removeprefix("v").split(".")[0])


needs_kubectl = pytest.mark.skipif(
    os.environ.get("CI") != "true" and version_of_kustomize() < 5,
    reason="manifests need kubectl 1.27 or newer; CI fails without it",
)


def render(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a kustomization.

    Raises:
        AssertionError: kubectl refuses it. The message has its reason.
    """
    result = subprocess.run(
        ["kubectl", "kustomize", str(folder)],
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))
