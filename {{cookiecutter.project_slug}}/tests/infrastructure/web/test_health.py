import asyncio
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient
from sqlalchemy import text

from app.db.migrate import migrate
from app.db.schema_version import Revisions
from app.db.session import open_database
from app.main import create_app
from app.service_info import SERVICE_NAME, service_version
from app.settings import Settings
from app.web.checks import Check, Health
from conftest import running, running_with_state, settings_for
from postgres_server import Postgres

PROBES = ("/health", "/health/live", "/health/ready", "/health/startup", "/health/detailed")
TOKEN = "a-token-of-some-length"


@pytest.fixture
def unshared_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the checks for each probe."""
    monkeypatch.setattr("app.web.checks.SHARED_SECONDS", 0.0)


@pytest.fixture
def health(unshared_checks: None) -> Health:  # noqa: ARG001 - used for its effect
    return Health()


async def succeed() -> None:
    pass


async def fail() -> None:
    raise ConnectionError("db.internal:5432 refused user app with password hunter2")


async def hang() -> None:
    await asyncio.sleep(60)


async def test_every_probe_of_a_healthy_service_returns_200(service: AsyncClient) -> None:
    for path in PROBES:
        assert (await service.get(path)).status_code == 200, path
    ready = (await service.get("/health/ready")).json()
    assert ready["status"] == "ready"
    assert ready["components"]["database"] == ready["components"]["migrations"] == "ok"


async def test_health_returns_service_version_and_commit(service: AsyncClient) -> None:
    await service.get("/health/ready")
    summary = (await service.get("/health")).json()
    assert summary.pop("uptime_seconds") >= 0
    assert summary == {
        "status": "ok",
        "service": SERVICE_NAME,
        "version": service_version(),
        "commit": "unknown",
    }


@pytest.fixture
def newer_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code require a migration that no database has."""
    revisions = Revisions("_test", frozenset({"_test"}))
    monkeypatch.setattr("app.db.schema_version.load_revisions", lambda: revisions)


@pytest.mark.usefixtures("newer_revision")
async def test_readiness_on_an_empty_database_returns_503(empty_database: str) -> None:
    async with running(create_app(settings_for(empty_database))) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.headers["Content-Type"] == "application/problem+json"
        assert ready.headers["Retry-After"] == "5"
        assert ready.json()["components"]["migrations"] == "failed"
        assert ready.json()["components"]["database"] == "ok"
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/startup")).status_code == 503


async def test_readiness_on_a_newer_schema_returns_200(migrated_database: str) -> None:
    settings = settings_for(migrated_database)
    async with open_database(settings) as database, database.session() as session:
        table = "CREATE TABLE IF NOT EXISTS alembic_version (version_num varchar(32))"
        await session.execute(text(table))
        await session.execute(text("DELETE FROM alembic_version"))
        await session.execute(text("INSERT INTO alembic_version VALUES ('_test')"))
    async with running(create_app(settings)) as client:
        assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.usefixtures("unshared_checks")
async def test_startup_probe_succeeds_for_good_after_the_first_success(
    migrated_database: str,
) -> None:
    app = create_app(settings_for(migrated_database))
    async with running_with_state(app) as (client, state):
        state["health"].add(Check("late", fail))
        assert (await client.get("/health/startup")).status_code == 503
        state["health"].add(Check("late", succeed))
        assert (await client.get("/health/startup")).status_code == 200
        state["health"].add(Check("late", fail))
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/startup")).status_code == 200


@pytest.mark.usefixtures("unshared_checks")
async def test_readiness_follows_a_frozen_stopped_and_restarted_database_in_time(
    postgres: Postgres,
) -> None:
    settings = settings_for(postgres.url)
    await migrate(settings)
    async with running_with_state(create_app(settings)) as (client, state):
        assert (await client.get("/health/ready")).status_code == 200
        postgres.freeze()
        assert (await client.get("/health/ready")).status_code == 503
        database = (await state["health"].components())["database"]
        assert database.reason == "no answer within 2 s"  # the driver would wait for longer
        assert (await client.get("/health/live")).status_code == 200
        postgres.stop()
        assert (await client.get("/health/ready")).status_code == 503
        postgres.start()
        assert (await client.get("/health/ready")).status_code == 200


async def test_draining_replica_is_not_ready_and_still_serves(settings: Settings) -> None:
    async with running_with_state(create_app(settings)) as (client, state):
        state["health"].is_draining = True
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health")).json()["status"] == "draining"
        live = await client.get("/health/live")
        assert live.status_code == 200
        assert live.headers["Connection"] == "close"


async def test_frozen_check_fails_after_its_timeout(health: Health) -> None:
    health.add(Check("slow", hang, timeout_seconds=0.05))
    health.add(Check("quick", succeed))
    components = await health.components()
    assert (components["slow"].status, components["quick"].status) == ("failed", "ok")


async def test_checks_run_concurrently(health: Health) -> None:
    all_run = asyncio.Barrier(10)  # one after the other, each would wait until its timeout
    for number in range(10):
        health.add(Check(f"waiting {number}", all_run.wait, timeout_seconds=20))
    components = await health.components()
    assert {component.status for component in components.values()} == {"ok"}


async def test_probes_of_one_second_share_one_round_of_checks() -> None:
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        rounds += 1
        await asyncio.sleep(0.01)

    health = Health()
    health.add(Check("counted", count))
    await asyncio.gather(*(health.components() for _ in range(100)))
    await health.components()
    assert rounds == 1


async def test_cancelled_probe_does_not_end_the_round_of_the_others(health: Health) -> None:
    health.add(Check("slow", hang, timeout_seconds=0.1))
    cancelled = asyncio.create_task(health.components())
    other = asyncio.create_task(health.components())
    await asyncio.sleep(0.01)
    cancelled.cancel()
    assert (await other)["slow"].status == "failed"


async def test_failed_check_that_is_not_critical_is_degraded(health: Health) -> None:
    health.add(Check("extra", fail, critical=False))
    assert (await health.readiness()).status == "degraded"


@pytest.fixture
async def client_with_failing_check(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with running_with_state(create_app(settings)) as (client, state):
        state["health"].add(Check("failing", fail))
        yield client


async def test_probe_with_a_failed_check_hides_the_reason(
    client_with_failing_check: AsyncClient,
) -> None:
    for path in PROBES:
        response = await client_with_failing_check.get(path)
        for secret in ("hunter2", "db.internal", "ConnectionError"):
            assert secret not in response.text, path


@pytest.mark.parametrize(
    ("token", "sent", "status"),
    [
        (None, None, 404),
        (TOKEN, None, 401),
        (TOKEN, "Bearer wrong", 401),
        (TOKEN, f"Bearer {TOKEN}", 200),
    ],
)
async def test_health_details_in_production_require_the_token(
    database_url: str, token: str | None, sent: str | None, status: int
) -> None:
    settings = settings_for(
        database_url, environment="production", allowed_hosts="testserver", health_token=token
    )
    async with running(create_app(settings)) as client:
        headers = {"Authorization": sent} if sent else {}
        response = await client.get("/health/detailed", headers=headers)
    assert response.status_code == status
    if status == 200:
        assert response.json()["components"]["database"]["status"] == "ok"
        assert response.json()["environment"] == "production"
