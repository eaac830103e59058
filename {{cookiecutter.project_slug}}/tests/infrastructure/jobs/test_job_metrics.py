"""The gauges of the queue at `/metrics` of a worker. Its processes are not started here."""

from datetime import timedelta
from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient
from sqlalchemy import func, insert

from app.db.migrate import migrate
from app.db.session import open_database
from app.jobs.health import create_health_app
from app.jobs.metrics import add_metrics_route
from app.jobs.models import JOBS
from app.jobs.registry import find_jobs
from app.jobs.worker_context import Pulse
from app.metrics.shared import FOLDER
from app.settings import Settings
from conftest import Lines, settings_for
from metric_samples import Scrape
from postgres_server import Postgres

Values = dict[str, object]
TOKEN = "a-token-of-some-length"
GAUGES = ("jobs_waiting", "jobs_running", "jobs_oldest_waiting_seconds")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the folder that the processes of a worker share."""
    monkeypatch.setenv(FOLDER, str(tmp_path))


async def store(settings: Settings, *jobs: Values) -> None:
    """Store jobs that were due two minutes ago, with other values."""
    due: Values = {"name": "a.job", "run_after": func.now() - timedelta(minutes=2), "arguments": {}}
    async with open_database(settings) as database, database.session() as session:
        for job in jobs:
            await session.execute(insert(JOBS).values(due | job))


async def scrape(settings: Settings, token: str | None = None) -> tuple[int, Scrape]:
    async with open_database(settings) as database:
        app = create_health_app(database, Pulse())
        add_metrics_route(app, settings, database, find_jobs())
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://worker") as client:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            response = await client.get("/metrics", headers=headers)
    return response.status_code, Scrape(response.text if response.is_success else "")


@pytest.mark.usefixtures("clean_tables")
async def test_queue_gauges_count_due_and_running_jobs_by_name(settings: Settings) -> None:
    later: Values = {"run_after": func.now() + timedelta(hours=1)}
    recently: Values = {"run_after": func.now() - timedelta(minutes=1)}
    ended: list[Values] = [{"status": status} for status in ("succeeded", "failed", "canceled")]
    await store(
        settings,
        {},
        recently,
        later,
        {"status": "running"},
        *ended,
        {"name": "another.job", **later},
    )
    _, found = await scrape(settings)
    assert [found.value(name, job_name="a.job") for name in GAUGES[:2]] == [2, 1]
    assert 120 <= found.value(GAUGES[2], job_name="a.job") < 1000
    assert {found.value(name, job_name="another.job") for name in GAUGES} == {0}


@pytest.mark.usefixtures("clean_tables")
async def test_queue_gauges_of_every_job_are_0_without_jobs(settings: Settings) -> None:
    _, found = await scrape(settings)
    for name in GAUGES:
        assert {labels["job_name"] for labels in found.labels(name)} == set(find_jobs())
        assert found.value(name) == 0


async def test_metrics_without_database_lack_the_queue_and_log_it(
    postgres: Postgres, lines: Lines
) -> None:
    settings = settings_for(postgres.url)
    await migrate(settings)
    postgres.stop()
    status, found = await scrape(settings)
    assert (status, found.families) == (200, [])
    assert [line["message"] for line in lines()][-2:] == [
        "database unavailable",
        "metrics lack the queue",
    ]


async def test_metrics_with_a_frozen_database_respond_before_the_timeout_of_a_scrape(
    postgres: Postgres, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(postgres.url)
    await migrate(settings)
    monkeypatch.setattr("app.jobs.metrics.QUEUE_TIMEOUT_SECONDS", 0.2)
    postgres.freeze()
    status, found = await scrape(settings)
    postgres.thaw()
    assert (status, found.families) == (200, [])
    assert lines()[-1]["message"] == "metrics lack the queue"


@pytest.mark.parametrize(
    ("token", "sent", "status"),
    [(None, None, 404), (TOKEN, None, 401), (TOKEN, "wrong", 401), (TOKEN, TOKEN, 200)],
)
async def test_metrics_of_a_worker_in_production_require_the_token(
    database_url: str, token: str | None, sent: str | None, status: int
) -> None:
    settings = settings_for(
        database_url, environment="production", allowed_hosts="x", metrics_token=token
    )
    found, samples = await scrape(settings, sent)
    assert found == status
    assert bool(samples.samples) == (status == 200)
