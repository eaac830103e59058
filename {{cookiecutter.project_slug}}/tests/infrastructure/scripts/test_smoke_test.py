"""scripts/smoke_test.py with this service, and with servers that have one fault each."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from processes import PROBLEM, ROOT, Responses, serve_responses

RESPONSES: Responses = {
    "/health": (200, {"commit": "c0ffee"}),
    "/health/live": (200, {}),
    "/health/ready": (200, {}),
}


def smoke_test(url: str, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/smoke_test.py", url, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def no_examples(tmp_path: Path) -> Path:
    """Return a folder with the scripts of a service without examples."""
    (tmp_path / "scripts").mkdir()
    for script in (ROOT / "scripts").glob("*.py"):
        lines = script.read_text().splitlines(keepends=True)
        text = "".join(line for line in lines if not line.startswith("EXAMPLES["))
        (tmp_path / "scripts" / script.name).write_text(text)
    return tmp_path


def test_smoke_test_of_another_commit_fails_after_the_wait(no_examples: Path) -> None:
    with serve_responses(RESPONSES) as url:
        result = smoke_test(url, "--commit", "0ld", "--wait", "1", folder=no_examples)
    assert result.returncode == 1
    assert result.stderr == "smoke test failed: commit c0ffee runs, not 0ld\n"


def test_smoke_test_waits_for_the_wanted_commit(no_examples: Path) -> None:
    responses = {**RESPONSES, "/health": (200, {"commit": "0ld"})}
    with serve_responses(responses) as url:
        timer = threading.Timer(1.5, lambda: responses.update(RESPONSES))
        timer.start()
        result = smoke_test(url, "--commit", "c0ffee", "--wait", "30", folder=no_examples)
        timer.join()
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 500), ("/health/ready", 503), ("/health/live", 404)]
)
def test_smoke_test_with_a_failing_probe_fails(path: str, status: int, no_examples: Path) -> None:
    with serve_responses({**RESPONSES, path: (status, {"reason": "x"})}) as url:
        result = smoke_test(url, folder=no_examples)
    assert result.returncode == 1
    expected = f'smoke test failed: GET {path}: {status}, not 200: {{"reason": "x"}}\n'
    assert result.stderr == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [("Content-Type", "an error is not a problem document"), ("X-Request-Id", "has no request id")],
)
def test_smoke_test_without_problem_document_or_request_id_fails(
    header: str, expected: str, no_examples: Path
) -> None:
    with serve_responses(RESPONSES, {k: v for k, v in PROBLEM.items() if k != header}) as url:
        result = smoke_test(url, folder=no_examples)
    assert result.returncode == 1
    assert expected in result.stderr


def test_smoke_test_without_a_server_fails_without_a_traceback(no_examples: Path) -> None:
    with serve_responses({}) as url:
        pass
    result = smoke_test(url, folder=no_examples)
    assert result.returncode == 1
    assert result.stderr.startswith("smoke test failed: GET /health: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("url", ["", "api.example.com", "ftp://api.example.com"])
def test_smoke_test_of_an_invalid_url_fails(url: str) -> None:
    result = smoke_test(url)
    assert result.returncode == 1
    assert "is not an http:// or https:// URL" in result.stderr
