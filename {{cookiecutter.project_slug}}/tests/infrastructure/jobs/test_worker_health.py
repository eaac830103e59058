"""The health checks of a worker. The pulse is that of the part that starts jobs."""

import pytest
from httpx import ASGITransport, AsyncClient

from app.db.session import open_database
from app.jobs.health import create_health_app
from app.jobs.worker_context import Pulse
from app.settings import Settings
from conftest import settings_for
from postgres_server import Postgres


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the checks for each probe, and bear pauses of a busy machine."""
    monkeypatch.setattr("app.web.checks.SHARED_SECONDS", 0.0)
    monkeypatch.setattr("app.jobs.health.MAX_PULSE_SECONDS", 60.0)


async def probe(settings: Settings, pulse: Pulse, path: str) -> tuple[int, str]:
    """Return the status of the response and the type of its problem."""
    async with open_database(settings) as database:
        transport = ASGITransport(create_health_app(database, pulse))
        async with AsyncClient(transport=transport, base_url="http://worker") as client:
            response = await client.get(f"/health/{path}")
    return response.status_code, response.json().get("type", "")


async def test_worker_with_a_recent_pulse_is_live_and_ready(settings: Settings) -> None:
    assert await probe(settings, Pulse(), "live") == (200, "")
    assert await probe(settings, Pulse(), "ready") == (200, "")


async def test_worker_without_a_recent_pulse_is_neither_live_nor_ready(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.health.MAX_PULSE_SECONDS", 0.0)
    for path in ("live", "ready"):
        assert await probe(settings, Pulse(), path) == (503, "urn:problem:worker-blocked")


async def test_stopping_worker_is_live_and_not_ready(settings: Settings) -> None:
    pulse = Pulse()
    pulse.is_stopping = True
    assert await probe(settings, pulse, "live") == (200, "")
    assert await probe(settings, pulse, "ready") == (503, "urn:problem:not-ready")


async def test_worker_without_database_is_live_and_not_ready(postgres: Postgres) -> None:
    settings = settings_for(postgres.url)
    postgres.stop()
    assert await probe(settings, Pulse(), "live") == (200, "")
    assert await probe(settings, Pulse(), "ready") == (503, "urn:problem:not-ready")
