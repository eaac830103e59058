"""The metrics of a worker, whose jobs run in one process or in several."""

import asyncio
import re
import sys
from datetime import timedelta

import httpx

from app.service_info import service_version
from conftest import AUTH_KEYS, MAIL_OF_PRODUCTION  # option: accounts
from metric_samples import Scrape
from processes import HANG_SECONDS, RESERVED, ROOT, Service, wait_until
from worker_copies import WorkerCopies, workers

__all__ = ["workers"]  # a fixture

TOKEN = "a-token-of-some-length"
PRODUCTION = {
    "ENVIRONMENT": "production",
    "ALLOWED_HOSTS": "api.example.com",
    "METRICS_TOKEN": TOKEN,
    "AUTH_KEYS": AUTH_KEYS,  # option: accounts
    "OIDC_ISSUER": "https://login.example.com",  # option: oidc
    "OIDC_AUDIENCE": "https://api.example.com",  # option: oidc
}
PRODUCTION |= {k.upper(): v for k, v in MAIL_OF_PRODUCTION.items()}  # option: accounts
ATTEMPTS = "job_attempts_total"
DURATIONS = "job_duration_seconds"


def scrape(worker: Service) -> Scrape:
    response = httpx.get(
        f"{worker.url}/metrics",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=HANG_SECONDS,
    )
    assert response.status_code == 200
    return Scrape(response.text)


def queried_names() -> set[str]:
    """Return the names in the queries of the dashboard, and in the alerts of workers."""
    folder = ROOT / "observability"
    dashboard = (folder / "grafana" / "dashboards" / "jobs.json").read_text(encoding="utf-8")
    alerts = (folder / "alerts.yml").read_text(encoding="utf-8")
    names = set(re.findall(r"\b([a-z_0-9]+)\{job=", dashboard))
    return names | set(re.findall(r'\b([a-z_0-9]+)\{job="[a-z-]+-worker"', alerts))


def attempts(found: Scrape, job: str) -> dict[str, float]:
    """Return the attempts at a job by outcome."""
    name = f"{RESERVED}.{job}"
    outcomes = {labels["outcome"] for labels in found.labels(ATTEMPTS)}
    return {outcome: found.value(ATTEMPTS, job_name=name, outcome=outcome) for outcome in outcomes}


async def test_worker_in_production_exposes_its_attempts_and_the_queue(
    workers: WorkerCopies,
) -> None:
    await workers.enqueue("succeed", delay=timedelta(hours=1))
    worker = workers.start(**PRODUCTION, WORKER_CONCURRENCY="2")
    await asyncio.to_thread(worker.wait_until_ready)
    assert httpx.get(f"{worker.url}/metrics").status_code == 401
    none = dict.fromkeys(("succeeded", "repeated", "retried", "failed"), 0)
    before = await asyncio.to_thread(scrape, worker)
    # `increase` of Prometheus counts the first failure only from 0.
    assert attempts(before, "fail") == none
    for name in ("succeed", "succeed", "fail", "wait", "wait", "wait"):
        await workers.enqueue(name)

    def is_idle() -> bool:
        found = scrape(worker)
        return (
            attempts(found, "succeed")["succeeded"] == 2
            and attempts(found, "fail")["failed"] == 1
            and found.value("jobs_running", job_name=f"{RESERVED}.wait") == 2
        )

    await asyncio.to_thread(wait_until, is_idle, doing=worker)
    found = await asyncio.to_thread(scrape, worker)
    assert attempts(found, "succeed") == none | {"succeeded": 2}
    assert attempts(found, "fail") == none | {"failed": 1}
    assert found.value(f"{DURATIONS}_count", job_name=f"{RESERVED}.succeed") == 2
    assert found.value("jobs_waiting", job_name=f"{RESERVED}.wait") == 1
    assert found.value("jobs_waiting", job_name=f"{RESERVED}.succeed") == 0
    assert 0 < found.value("jobs_oldest_waiting_seconds", job_name=f"{RESERVED}.wait") < 1000
    (build,) = found.labels("app_build_info")
    assert build["version"] == service_version()
    if sys.platform == "linux":
        pids = {labels["pid"] for labels in found.labels("process_resident_memory_bytes")}
        assert str(worker.process.pid) in pids
        number = 1
        if workers.backend == "app.jobs.celery":  # option: celery
            number = 3  # with the processes of its jobs  # option: celery
        assert len(pids) == number
    exposed = {sample.name for sample in found.samples} | {"up"}
    assert queried_names() <= exposed
    workers.postgres.stop()
    without = await asyncio.to_thread(scrape, worker)
    assert attempts(without, "fail")["failed"] == 1
    assert without.labels("jobs_waiting") == []
    assert "metrics lack the queue" in worker.messages()
