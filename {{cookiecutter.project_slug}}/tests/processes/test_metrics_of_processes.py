"""Metrics of several server processes."""

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from metric_samples import REQUESTS, Scrape
from processes import Service, environment, get, wait_until, workers_of

IS_LINUX = sys.platform == "linux"


DURATIONS = "http_request_duration_seconds"


@contextmanager
def several_processes(database_url: str, folder: Path) -> Iterator[Service]:
    env = environment(
        database_url, WEB_CONCURRENCY="2", DATABASE_POOL_SIZE="16", TMPDIR=str(folder)
    )
    with Service(["app", "serve"], env) as service:
        service.wait_until_ready()
        yield service


def request_until_all_respond(service: Service, folder: Path, pids: set[int]) -> int:
    """Send concurrent requests until every process has responded, and return their number."""
    sent, url = 0, service.url

    def have_all_responded() -> bool:
        nonlocal sent
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(lambda _: get(f"{url}/health/live"), range(16)))
        assert {response.status_code for response in responses} == {200}
        sent += len(responses)
        return all((folder / f"counter_{pid}.db").exists() for pid in pids)

    wait_until(have_all_responded, doing=service)
    return sent


def scrape_at(url: str) -> Scrape:
    return Scrape(get(f"{url}/metrics").text)


def counted_requests(url: str) -> float:
    return scrape_at(url).value(REQUESTS, route="/health/live")


def pids_in(scrape: Scrape) -> set[int]:
    """Return the processes with gauges in a scrape."""
    return {int(s["pid"]) for s in scrape.labels("process_resident_memory_bytes")}


@pytest.mark.skipif(not IS_LINUX, reason="process metrics are read from /proc")
def test_several_processes_are_scraped_as_one_and_a_dead_one_keeps_its_counters(
    database_url: str, tmp_path: Path
) -> None:
    with several_processes(database_url, tmp_path) as service:
        url, (first, second) = service.url, workers_of(service)
        (folder,) = tmp_path.glob("metrics-*")
        assert folder.stat().st_mode & 0o077 == 0, "only the owner may read the folder"
        sent = request_until_all_respond(service, folder, {first, second})
        # A request is counted after its response.
        wait_until(lambda: counted_requests(url) == sent, doing=service)
        found = [scrape_at(url) for _ in range(10)]
        assert {scrape.value(REQUESTS, route="/health/live") for scrape in found} == {sent}
        assert found[0].value(f"{DURATIONS}_count", route="/health/live") == sent
        assert found[0].value("database_pool_size") == 32
        assert found[0].value("http_requests_in_flight") == 0
        assert found[0].value("app_build_info") == 1
        assert pids_in(found[0]) == {first, second}
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(set(workers_of(service)) - {first}) == 2, doing=service)
        (third,) = set(workers_of(service)) - {first, second}
        sent += request_until_all_respond(service, folder, {second, third})
        # The counters of the dead process stay.
        wait_until(lambda: counted_requests(url) == sent, doing=service)
        after = scrape_at(url)
        assert after.value("database_pool_size") == 32
        assert pids_in(after) == {second, third}
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    assert list(tmp_path.glob("metrics-*")) == [], "the service deletes the folder"
