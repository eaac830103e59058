"""Deploying to Railway, with a stand-in for its program that writes down how it is called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy_to_railway import SERVICES
from processes import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
STAND_IN = '#!/bin/sh\necho "$PWD: $*" >> "$CALLS"\ncase "$*" in *"$FAILS"*) exit 1 ;; esac\n'


def deploy(folder: Path, fails: str = "nothing") -> tuple[subprocess.CompletedProcess[str], str]:
    """What came of it, and the calls; the stand-in fails when its arguments have those words."""
    program = folder / "bin" / "railway"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    (folder / "version").mkdir()
    (folder / "calls").touch()
    env = {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        "FAILS": fails,
    }
    command = [sys.executable, "scripts/deploy_to_railway.py", "c0ffee", str(folder / "version")]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    calls = (folder / "calls").read_text().replace(f"{folder / 'version'}: ", "")
    return result, calls


def test_each_service_learns_its_commit_and_is_deployed_once(tmp_path: Path) -> None:
    result, calls = deploy(tmp_path)
    assert result.returncode == 0, result.stderr
    assert SERVICES[0] == "app", "it migrates"
    assert calls == "".join(
        f"variable set COMMIT_SHA=c0ffee --skip-deploys --service {service}\n"
        f"up --ci --service {service}\n"
        for service in SERVICES
    )


def test_after_a_failure_nothing_more_is_deployed(tmp_path: Path) -> None:
    result, calls = deploy(tmp_path, fails="up --ci --service app")
    assert result.returncode == 1
    assert result.stderr.startswith("not deployed: ")
    assert "Traceback" not in result.stderr
    assert calls.splitlines()[-1] == "up --ci --service app"
