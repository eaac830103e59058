"""scripts/deploy_to_railway.py with a fake `railway` program that records its calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy_to_railway import SERVICES
from processes import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the fake program is a shell script"
)
FAKE_RAILWAY = '#!/bin/sh\necho "$PWD: $*" >> "$CALLS"\ncase "$*" in *"$FAILS"*) exit 1 ;; esac\n'


def deploy(folder: Path, fails: str = "nothing") -> tuple[subprocess.CompletedProcess[str], str]:
    """Deploy, and return the result and the calls.

    Args:
        folder: for the files of the test.
        fails: the fake program fails if its arguments contain this text.
    """
    program = folder / "bin" / "railway"
    program.parent.mkdir()
    program.write_text(FAKE_RAILWAY)
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


def test_each_service_gets_its_commit_and_is_deployed_once(tmp_path: Path) -> None:
    result, calls = deploy(tmp_path)
    assert result.returncode == 0, result.stderr
    assert SERVICES[0] == "app", "the first service migrates the database"
    assert calls == "".join(
        f"variable set COMMIT_SHA=c0ffee --skip-deploys --service {service}\n"
        f"up --ci --service {service}\n"
        for service in SERVICES
    )


def test_failed_deployment_stops_the_next_ones(tmp_path: Path) -> None:
    result, calls = deploy(tmp_path, fails="up --ci --service app")
    assert result.returncode == 1
    assert result.stderr.startswith("not deployed: ")
    assert "Traceback" not in result.stderr
    assert calls.splitlines()[-1] == "up --ci --service app"
