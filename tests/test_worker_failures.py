"""Failure tests of workers on the compose stack: killed with running jobs, and stopped."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import Bake
from engine import Load, Stack, ask, kill, record, state_of, wait_until

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("docker_engine")]

JOB = "bookmarks.find_duplicates"
COUNT_FINISHED = (
    "SELECT count(*) FROM jobs WHERE name = 'bookmarks.find_duplicates' AND status = 'succeeded'"
)


# The stack with every option shows that PgQueuer starts in the image.
@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.thorough), "celery"])
def stack(bake: Bake, request: pytest.FixtureRequest) -> Iterator[Stack]:
    folder = bake(lock=True, worker=request.param).path
    with Stack(folder, variables={"IMAGE_TAG": f"test-{request.param}"}) as stack:
        stack.compose("build", "app", "proxy")
        stack.up("--scale", "worker=2")
        yield stack


def create(stack: Stack, number: int) -> None:
    page = {"url": f"https://example.com/{number}", "title": "A page"}
    assert ask(f"{stack.url}/bookmarks", method="POST", body=page).status == 201


def bookmarks(stack: Stack) -> int:
    return int(stack.psql("SELECT count(*) FROM bookmarks"))


def finished(stack: Stack) -> int:
    return int(stack.psql(COUNT_FINISHED))


def done_by_id(stack: Stack) -> Counter[str]:
    lines = stack.compose("logs", "--no-color", "--no-log-prefix", "worker").splitlines()
    parsed = [json.loads(line) for line in lines]
    return Counter(x["job_id"] for x in parsed if x["message"] == "job done" and x["job"] == JOB)


def test_killed_worker_loses_no_job_and_repeats_none(stack: Stack, tmp_path: Path) -> None:
    library = stack.variables["IMAGE_TAG"].removeprefix("test-")
    host, port = urlsplit(stack.url).hostname or "", urlsplit(stack.url).port or 0
    kills = 0
    with Load(host, port) as load:
        for worker in stack.containers("worker"):
            time.sleep(2)
            kill(worker)
            kills += 1
        time.sleep(2)
    assert load.failed == []
    over_at = time.monotonic()
    # A worker of Celery is taken for dead after 30 s, and a lost message is sent again after 60 s.
    wait_until(lambda: finished(stack) == bookmarks(stack), seconds=180, of="all jobs done")
    seconds = time.monotonic() - over_at
    assert finished(stack) == len(load.created) > 0
    assert max(done_by_id(stack).values()) == 1
    record(f"{library}: {len(load.created)} jobs enqueued, {kills} workers killed; "
        f"all done {seconds:.1f} s after the last request, none twice")  # fmt: skip

    stack.compose("stop", "worker")  # queued jobs are kept, even if Redis is killed
    states = [state_of(worker) for worker in stack.compose("ps", "-aq", "worker").split()]
    assert [state["ExitCode"] for state in states] == [0, 0]
    for number in range(20):
        create(stack, number)
    kill(stack.containers("cache")[0])
    stack.up("--scale", "worker=2")
    wait_until(lambda: finished(stack) == bookmarks(stack), seconds=60, of="queued jobs")
    record(f"{library}: 20 queued jobs are done after Redis was killed")

    if library == "postgres":
        restore_backup(stack, f"file={tmp_path / 'backup.dump'}")


def restore_backup(stack: Stack, file: str) -> None:
    def starts() -> set[str]:
        return {state_of(worker)["StartedAt"] for worker in stack.containers("worker")}

    rows, started = bookmarks(stack), starts()
    for target in ("db-dump", "db-reset", "db-restore"):
        result = stack.make(target, file)
        assert result.returncode == 0, result.stdout + result.stderr
    assert bookmarks(stack) == rows
    assert not started & starts(), "running jobs finish before the restart"
    create(stack, 20)
    wait_until(lambda: finished(stack) == rows + 1, seconds=60, of="a job after the restore")
