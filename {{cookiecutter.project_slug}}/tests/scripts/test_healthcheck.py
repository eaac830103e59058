"""The health check of the container, against a server that answers this or that."""

import subprocess
import sys

import pytest

from processes import ROOT, answering


def check(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-IS", "scripts/healthcheck.py"]
    env = {"PORT": url.rpartition(":")[2]}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=20
    )


def test_it_succeeds_on_200() -> None:
    with answering({"/health/ready": (200, {})}) as url:
        assert check(url).returncode == 0


@pytest.mark.parametrize("status", [204, 302, 404, 500, 503])
def test_it_fails_on_anything_else_and_says_what_it_got(status: int) -> None:
    with answering({"/health/ready": (status, {"why": "x"})}) as url:
        result = check(url)
    assert result.returncode == 1
    body = "" if status == 204 else '{"why": "x"}'
    assert result.stderr == f"{status}: {body}\n"


def test_it_fails_if_nobody_answers() -> None:
    with answering({}) as url:
        pass
    result = check(url)
    assert result.returncode == 1
    assert result.stderr.startswith("no response: ")
