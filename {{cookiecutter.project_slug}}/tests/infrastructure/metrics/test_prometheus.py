import asyncio
import re
import sys
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import ValidationError
from sqlalchemy import text

from app.db.session import open_database
from app.main import create_app
from app.service_info import service_version
from app.settings import Settings
from app.web.dependencies import DatabaseDep, Session
from conftest import running, settings_for
from metric_samples import REQUESTS, Scrape
from processes import ROOT
from sql import fetch

IS_LINUX = sys.platform == "linux"
TOKEN = "a-token-of-some-length"
NAMES = re.compile(r"\b(?:up|[a-z]+(?:_[a-z0-9]+)+)(?=\{)")  # of metrics, as in queries
DURATIONS = "http_request_duration_seconds"
JOB_METRICS = ("job_", "jobs_")  # option: worker
OWN_METRICS = ("app_", "database_", "http_", "process_")


async def scrape(client: AsyncClient) -> Scrape:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(response.text)


class Gate:
    """A gate that holds requests until the test opens it."""

    def __init__(self) -> None:
        self.is_reached = asyncio.Event()
        self.is_open = asyncio.Event()

    async def wait(self) -> None:
        self.is_reached.set()
        await self.is_open.wait()


def app_with_routes(settings: Settings, gate: Gate | None = None) -> FastAPI:
    app = create_app(settings)

    @app.get("/_test/things/{number}")
    async def thing(number: int) -> int:
        return number

    @app.get("/_test/broken")
    async def broken() -> None:
        raise RuntimeError

    @app.get("/_test/held")
    async def held(session: Session) -> None:
        await fetch(session, text("SELECT 1"))
        assert gate is not None
        await gate.wait()

    @app.get("/_test/read")
    async def read(database: DatabaseDep) -> None:
        await fetch(database, text("SELECT 1"))

    return app


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with running(app_with_routes(settings)) as client:
        yield client


async def test_head_request_is_counted_with_the_route_of_get(client: AsyncClient) -> None:
    await client.head("/_test/things/1")
    assert ("HEAD", "/_test/things/{number}", "200") in (await scrape(client)).requests


async def test_requests_are_counted_by_route_method_and_status(client: AsyncClient) -> None:
    for number in range(3):
        await client.get(f"/_test/things/{number}")
    await client.get("/_test/things/none")
    await client.delete("/_test/things/1")
    await client.get("/_test/broken")
    found = await scrape(client)
    assert found.requests == {
        ("GET", "/_test/things/{number}", "200"),
        ("GET", "/_test/things/{number}", "422"),
        ("DELETE", "/_test/things/{number}", "405"),
        ("GET", "/_test/broken", "500"),
    }
    assert found.value(REQUESTS, route="/_test/things/{number}", status="200") == 3
    assert found.value(f"{DURATIONS}_count", route="/_test/things/{number}", method="GET") == 4
    assert found.value(f"{DURATIONS}_sum") > 0
    assert not [sample.name for sample in found.samples if sample.name.endswith("_created")]


async def test_unknown_paths_and_methods_share_one_label(client: AsyncClient) -> None:
    for path in (
        "/_test/nowhere",
        "/_test/things/1/more",
        "/_test/wp-login.php",
        "/metrics/of/mine",
    ):
        await client.get(path)
    for method in ("BREW", "PROPFIND"):
        await client.request(method, "/_test/nowhere")
    found = await scrape(client)
    assert found.requests == {("GET", "unmatched", "404"), ("OTHER", "unmatched", "404")}
    assert found.value(REQUESTS, method="OTHER") == 2


async def test_refused_host_is_counted_and_a_scrape_accepts_any_host(database_url: str) -> None:
    app = create_app(settings_for(database_url, allowed_hosts="testserver"))
    async with running(app) as client:
        assert (await client.get("/", headers={"Host": "10.0.0.7:8000"})).status_code == 400
        response = await client.get("/metrics", headers={"Host": "10.0.0.7:8000"})
    assert Scrape(response.text).requests == {("GET", "unmatched", "400")}


async def test_scrape_is_not_counted(client: AsyncClient) -> None:
    await scrape(client)
    found = await scrape(client)
    assert found.requests == set()
    assert found.value("http_requests_in_flight") == 0


async def test_duration_histogram_has_the_bucket_of_the_alert(client: AsyncClient) -> None:
    await client.get("/_test/things/1")
    bounds = [s["le"] for s in (await scrape(client)).labels(f"{DURATIONS}_bucket")]
    assert "2.0" in bounds
    assert len(bounds) == 13


async def test_request_in_flight_and_its_connection_are_measured(settings: Settings) -> None:
    gate = Gate()
    async with running(app_with_routes(settings, gate)) as client:
        held = asyncio.create_task(client.get("/_test/held"))
        await gate.is_reached.wait()
        during = await scrape(client)
        gate.is_open.set()
        await held
        after = await scrape(client)
    assert during.value("http_requests_in_flight") == 1
    assert during.value("database_pool_checked_out") == 1
    assert during.value("database_pool_size") == settings.database_pool_size
    assert after.value("http_requests_in_flight") == 0
    assert after.value("database_pool_checked_out") == 0
    assert after.value("database_pool_wait_seconds_count") == 1


async def test_cancelled_request_has_status_0_and_leaves_the_gauges(settings: Settings) -> None:
    gate = Gate()
    async with running(app_with_routes(settings, gate)) as client:
        held = asyncio.create_task(client.get("/_test/held"))
        await gate.is_reached.wait()
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        found = await scrape(client)
    assert found.requests == {("GET", "/_test/held", "0")}
    assert found.value("http_requests_in_flight") == 0
    assert found.value("database_pool_checked_out") == 0


async def test_wait_for_a_connection_that_times_out_is_measured(database_url: str) -> None:
    gate = Gate()
    small = settings_for(database_url, database_pool_size=1, database_pool_timeout_seconds=0.3)
    async with running(app_with_routes(small, gate)) as client:
        held = asyncio.create_task(client.get("/_test/held"))
        await gate.is_reached.wait()
        assert (await client.get("/_test/read")).status_code == 503
        timed_out = await scrape(client)
        gate.is_open.set()
        await held
        await client.get("/_test/read")
        after = await scrape(client)
    assert timed_out.value("database_pool_wait_seconds_count") == 2
    assert timed_out.value("database_pool_wait_seconds_sum") > 0.25
    assert timed_out.value("database_pool_checked_out") == 1
    assert after.value("database_pool_wait_seconds_count") == 3
    assert after.value("database_pool_checked_out") == 0


async def test_broken_connection_leaves_the_gauge(settings: Settings) -> None:
    app = app_with_routes(settings)

    @app.get("/_test/cut-off")
    async def cut_off(database: DatabaseDep) -> None:
        await fetch(database, text("SELECT pg_terminate_backend(pg_backend_pid())"))

    async with running(app) as client:
        assert (await client.get("/_test/cut-off")).status_code == 503
        assert (await scrape(client)).value("database_pool_checked_out") == 0
        assert (await client.get("/_test/read")).status_code == 200
        assert (await scrape(client)).value("database_pool_checked_out") == 0


async def test_build_and_process_metrics_are_exposed(database_url: str) -> None:
    async with running(create_app(settings_for(database_url, commit_sha="abc123"))) as client:
        found = await scrape(client)
    assert found.labels("app_build_info") == [{"version": service_version(), "commit": "abc123"}]
    if IS_LINUX:
        assert found.value("process_resident_memory_bytes") > 1e7
        assert found.value("process_cpu_seconds_total") > 0


@pytest.mark.parametrize(
    ("environment_name", "token", "sent", "status"),
    [
        ("production", None, None, 404),
        ("staging", None, "Bearer ", 404),
        ("production", TOKEN, None, 401),
        ("production", TOKEN, "Bearer wrong", 401),
        ("production", TOKEN, f"Bearer {TOKEN}", 200),
        ("development", TOKEN, None, 401),
        ("development", None, None, 200),
    ],
)
async def test_metrics_outside_development_require_the_token(
    database_url: str, environment_name: str, token: str | None, sent: str | None, status: int
) -> None:
    settings = settings_for(
        database_url,
        environment=environment_name,
        allowed_hosts="testserver",
        metrics_token=token,
        health_token="another-one-of-16",
    )
    async with running(create_app(settings)) as client:
        response = await client.get("/metrics", headers={"Authorization": sent} if sent else {})
    assert response.status_code == status
    assert ("http_requests" in response.text) == (status == 200)


def test_short_metrics_token_is_refused(database_url: str) -> None:
    with pytest.raises(ValidationError, match="at least 16 characters"):
        settings_for(database_url, metrics_token="short")


def test_openapi_document_has_no_metrics_route(settings: Settings) -> None:
    assert "/metrics" not in create_app(settings).openapi()["paths"]


async def test_queries_of_dashboard_and_alerts_name_exposed_metrics(client: AsyncClient) -> None:
    await client.get("/_test/read")
    found = await scrape(client)
    exposed = {sample.name for sample in found.samples} | {"up"}
    queried = set()
    for file in (ROOT / "observability").rglob("*"):
        if file.suffix in {".json", ".yml"} and file.name != "alerts_test.yml":
            queried |= set(NAMES.findall(file.read_text(encoding="utf-8")))
    # Workers expose these: tests/processes/test_worker_metrics.py.  # option: worker
    queried = {name for name in queried if not name.startswith(JOB_METRICS)}  # option: worker
    own = {name for name in queried if name.startswith(OWN_METRICS)}
    assert len(own) > 8
    assert own <= exposed
    assert queried <= exposed  # in the template only


async def test_statements_of_the_monitoring_page_run(settings: Settings) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    statements = re.findall(r"`(SELECT [^`]+ FROM [^`]+)`", page)
    assert statements
    async with open_database(settings) as database:
        for statement in statements:
            await fetch(database, text(statement))
