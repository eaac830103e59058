import asyncio
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient
from sqlalchemy import text

from app.db.migrate import migrate
from app.db.schema_version import Revisions
from app.db.session import open_database
from app.main import create_app
from app.service_info import SERVICE_NAME
from app.settings import Settings
from app.web.checks import Check, Health
from conftest import new_database, running, settings_for
from processes import own_postgres

PROBES = ("/health", "/health/live", "/health/ready", "/health/startup", "/health/detailed")
TOKEN = "a-token-of-some-length"


@pytest.fixture
def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every probe makes a round of checks of its own."""
    monkeypatch.setattr("app.web.checks.SHARED_SECONDS", 0.0)


@pytest.fixture
def health(settings: Settings, unshared: None) -> Health:  # noqa: ARG001 - it patches
    return Health()


async def fine() -> None:
    pass


async def broken() -> None:
    raise ConnectionError("db.internal:5432 refused user app with password hunter2")


async def frozen() -> None:
    await asyncio.sleep(60)


async def test_every_probe_of_a_healthy_service_succeeds(service: AsyncClient) -> None:
    for path in PROBES:
        assert (await service.get(path)).status_code == 200, path
    ready = (await service.get("/health/ready")).json()
    assert ready["status"] == "ready"
    assert set(ready["components"].values()) == {"ok"}
    assert {"database", "migrations"} <= set(ready["components"])


async def test_the_summary_says_who_answers(service: AsyncClient) -> None:
    await service.get("/health/ready")
    summary = (await service.get("/health")).json()
    assert summary.pop("uptime_seconds") >= 0
    assert summary == {
        "status": "ok",
        "service": SERVICE_NAME,
        "version": "0.1.0",
        "commit": "unknown",
    }


@pytest.fixture
def has_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this service has, let the code be at a migration that no database here has."""
    revisions = Revisions("9000", frozenset({"9000"}))
    monkeypatch.setattr("app.db.schema_version.load_revisions", lambda: revisions)


@pytest.mark.usefixtures("has_migrations")
async def test_an_empty_database_is_behind_and_so_not_ready(empty_database: str) -> None:
    async with running(create_app(settings_for(empty_database))) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.headers["Content-Type"] == "application/problem+json"
        assert ready.headers["Retry-After"] == "5"
        assert ready.json()["components"]["migrations"] == "failed"
        assert ready.json()["components"]["database"] == "ok"
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/startup")).status_code == 503


async def test_a_database_that_newer_code_migrated_is_ready() -> None:
    async with new_database() as url:
        await migrate(settings_for(url))
        async with open_database(settings_for(url)) as database, database.session() as t:
            table = "CREATE TABLE IF NOT EXISTS alembic_version (version_num varchar(32))"
            await t.execute(text(table))
            await t.execute(text("DELETE FROM alembic_version"))
            await t.execute(text("INSERT INTO alembic_version VALUES ('9999')"))
        async with running(create_app(settings_for(url))) as client:
            assert (await client.get("/health/ready")).status_code == 200


@pytest.mark.usefixtures("unshared")
async def test_start_up_is_complete_from_the_first_ready_moment_on(empty_database: str) -> None:
    await migrate(settings_for(empty_database))
    app = create_app(settings_for(empty_database))
    async with running(app) as client:
        app.state.opened["health"].add(Check("late", broken))
        assert (await client.get("/health/startup")).status_code == 503
        app.state.opened["health"].add(Check("late", fine))
        assert (await client.get("/health/startup")).status_code == 200
        app.state.opened["health"].add(Check("late", broken))
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/startup")).status_code == 200


@pytest.mark.usefixtures("unshared")
async def test_a_database_that_is_down_frozen_or_back_is_told_apart_within_the_budget() -> None:
    with own_postgres() as server:
        settings = settings_for(server.url)
        await migrate(settings)
        async with running(create_app(settings)) as client:
            assert (await client.get("/health/ready")).status_code == 200
            server.freeze()
            async with asyncio.timeout(3.5):  # a check has 2 s; to wait for the driver takes 4
                assert (await client.get("/health/ready")).status_code == 503
                assert (await client.get("/health/live")).status_code == 200
            server.stop()
            async with asyncio.timeout(3):
                assert (await client.get("/health/ready")).status_code == 503
            server.start()
            assert (await client.get("/health/ready")).status_code == 200


async def test_a_draining_replica_is_not_ready_and_still_serves(settings: Settings) -> None:
    app = create_app(settings)
    async with running(app) as client:
        app.state.opened["health"].is_draining = True
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health")).json()["status"] == "draining"
        live = await client.get("/health/live")
        assert live.status_code == 200
        assert live.headers["Connection"] == "close"


async def test_a_frozen_check_fails_after_its_own_timeout(health: Health) -> None:
    health.add(Check("slow", frozen, timeout_seconds=0.05))
    health.add(Check("quick", fine))
    components = await health.components()
    assert (components["slow"].status, components["quick"].status) == ("failed", "ok")


async def test_checks_run_at_the_same_time(health: Health) -> None:
    for number in range(10):
        health.add(Check(f"slow {number}", frozen, timeout_seconds=0.3))
    async with asyncio.timeout(2):  # one after the other they would take 3 s
        await health.components()


async def test_a_second_of_probes_is_one_round_of_checks() -> None:
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


async def test_a_probe_that_gives_up_does_not_end_the_round_of_the_others(health: Health) -> None:
    health.add(Check("slow", frozen, timeout_seconds=0.1))
    impatient = asyncio.create_task(health.components())
    patient = asyncio.create_task(health.components())
    await asyncio.sleep(0.01)
    impatient.cancel()
    assert (await patient)["slow"].status == "failed"


async def test_without_what_is_not_critical_the_service_is_degraded(health: Health) -> None:
    health.add(Check("extra", broken, critical=False))
    assert (await health.readiness()).status == "degraded"


@pytest.fixture
async def leaky(settings: Settings) -> AsyncIterator[AsyncClient]:
    app = create_app(settings)
    async with running(app) as client:
        app.state.opened["health"].add(Check("leaky", broken))
        yield client


async def test_no_probe_tells_why_something_failed(leaky: AsyncClient) -> None:
    for path in PROBES:
        text_of_answer = (await leaky.get(path)).text
        for secret in ("hunter2", "db.internal", "ConnectionError"):
            assert secret not in text_of_answer, path


@pytest.mark.parametrize(
    ("token", "sent", "status"),
    [
        (None, None, 404),
        (TOKEN, None, 401),
        (TOKEN, "Bearer wrong", 401),
        (TOKEN, f"Bearer {TOKEN}", 200),
    ],
)
async def test_details_are_closed_in_production_without_the_token(
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
