"""The smoke test, against this service, and against servers that are wrong in one thing."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from processes import PROBLEM, ROOT, STARTUP, Answers, Service, answering, environment
from smoke_test import EXAMPLES

ANSWERS: Answers = {
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
    """The scripts as they are for a service without examples."""
    (tmp_path / "scripts").mkdir()
    for script in (ROOT / "scripts").glob("*.py"):
        lines = script.read_text().splitlines(keepends=True)
        text = "".join(line for line in lines if not line.startswith("EXAMPLES["))
        (tmp_path / "scripts" / script.name).write_text(text)
    return tmp_path


async def test_this_service_passes_reading_and_writing(empty_database: str) -> None:
    env = environment(empty_database, COMMIT_SHA="c0ffee", DRAIN_SECONDS="0")
    with Service(STARTUP, env) as service:
        url = service.url

        def made() -> int:
            requests = [line for line in service.lines if line.get("method") == "POST"]
            return len([line for line in requests if line["path"] in EXAMPLES])

        reading = await asyncio.to_thread(smoke_test, url, "--commit", "c0ffee", "--wait", "20")
        assert reading.returncode == 0, reading.stderr
        assert reading.stdout == f"{url}: c0ffee works\n"
        assert made() == 0
        writing = await asyncio.to_thread(smoke_test, url, "--write")
        assert writing.returncode == 0, writing.stderr
        assert made() == len(EXAMPLES)
        deleted = [line for line in service.lines if line.get("method") == "DELETE"]
        assert [line["status"] for line in deleted] == [204] * len(EXAMPLES)


def test_another_commit_is_waited_for_and_then_a_failure(no_examples: Path) -> None:
    with answering(ANSWERS) as url:
        result = smoke_test(url, "--commit", "0ld", "--wait", "1", folder=no_examples)
    assert result.returncode == 1
    assert result.stderr == "smoke test failed: commit c0ffee runs, not 0ld\n"


def test_the_wanted_commit_may_come_late(no_examples: Path) -> None:
    answers = {**ANSWERS, "/health": (200, {"commit": "0ld"})}
    with answering(answers) as url:
        timer = threading.Timer(1.5, lambda: answers.update(ANSWERS))
        timer.start()
        result = smoke_test(url, "--commit", "c0ffee", "--wait", "30", folder=no_examples)
        timer.join()
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 500), ("/health/ready", 503), ("/health/live", 404)]
)
def test_a_health_check_that_fails_is_a_failure(path: str, status: int, no_examples: Path) -> None:
    with answering({**ANSWERS, path: (status, {"why": "x"})}) as url:
        result = smoke_test(url, folder=no_examples)
    assert result.returncode == 1
    expected = f'smoke test failed: GET {path}: {status}, not 200: {{"why": "x"}}\n'
    assert result.stderr == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [("Content-Type", "an error is not a problem document"), ("X-Request-Id", "has no request id")],
)
def test_an_error_must_be_a_problem_document_with_a_request_id(
    header: str, expected: str, no_examples: Path
) -> None:
    with answering(ANSWERS, {k: v for k, v in PROBLEM.items() if k != header}) as url:
        result = smoke_test(url, folder=no_examples)
    assert result.returncode == 1
    assert expected in result.stderr


def test_nobody_there_is_a_failure_without_a_traceback(no_examples: Path) -> None:
    with answering({}) as url:
        pass
    result = smoke_test(url, folder=no_examples)
    assert result.returncode == 1
    assert result.stderr.startswith("smoke test failed: GET /health: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("url", ["", "api.example.com", "ftp://api.example.com"])
def test_what_is_no_url_of_a_service_is_refused(url: str) -> None:
    result = smoke_test(url)
    assert result.returncode == 1
    assert "is not an http:// or https:// URL" in result.stderr
