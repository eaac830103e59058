"""scripts/healthcheck.py, the health check of the container, with a fake server."""

import subprocess
import sys

import pytest

from processes import ROOT, serve_responses


def check(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-IS", "scripts/healthcheck.py"]
    env = {"PORT": url.rpartition(":")[2]}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=20
    )


def test_healthcheck_on_200_succeeds() -> None:
    with serve_responses({"/health/ready": (200, {})}) as url:
        assert check(url).returncode == 0


@pytest.mark.parametrize("status", [204, 302, 404, 500, 503])
def test_healthcheck_on_another_status_fails_and_prints_the_response(status: int) -> None:
    with serve_responses({"/health/ready": (status, {"reason": "x"})}) as url:
        result = check(url)
    assert result.returncode == 1
    body = "" if status == 204 else '{"reason": "x"}'
    assert result.stderr == f"{status}: {body}\n"


def test_healthcheck_without_a_server_fails() -> None:
    with serve_responses({}) as url:
        pass
    result = check(url)
    assert result.returncode == 1
    assert result.stderr.startswith("no response: ")
