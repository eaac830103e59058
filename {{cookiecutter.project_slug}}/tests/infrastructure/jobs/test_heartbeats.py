"""Workers in `/health/detailed` of the service."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from httpx import AsyncClient
from sqlalchemy import func, insert

from app.db.migrate import migrate
from app.db.session import open_database
from app.jobs.models import WORKERS
from app.main import create_app
from app.settings import Settings
from conftest import Lines, running, settings_for
from postgres_server import Postgres

NONE = {"alive": 0, "heartbeat_age_seconds": None}


async def beat(settings: Settings, *ages: timedelta) -> None:
    """Store a worker for each age of a last heartbeat."""
    async with open_database(settings) as database, database.session() as session:
        for age in ages:
            worker = {"id": uuid4(), "host": "h", "concurrency": 4, "beat_at": func.now() - age}
            await session.execute(insert(WORKERS).values(worker))


async def workers(client: AsyncClient) -> Any:
    return (await client.get("/health/detailed")).json()["info"]["workers"]


async def test_service_without_workers_is_ready_and_shows_none(client: AsyncClient) -> None:
    assert await workers(client) == NONE
    assert (await client.get("/health/ready")).json()["status"] == "ready"


async def test_workers_with_a_recent_heartbeat_are_counted(
    client: AsyncClient, settings: Settings
) -> None:
    await beat(settings, *(timedelta(seconds=age) for age in (2, 20, 40, 3000)))
    found = await workers(client)
    assert found["alive"] == 2
    assert 2 <= found["heartbeat_age_seconds"] < 20


async def test_age_of_the_last_heartbeat_is_shown_after_every_worker_has_failed(
    client: AsyncClient, settings: Settings
) -> None:
    await beat(settings, timedelta(minutes=5))
    found = await workers(client)
    assert found["alive"] == 0
    assert 300 <= found["heartbeat_age_seconds"] < 1000


async def test_workers_are_null_while_the_database_is_unavailable(
    postgres: Postgres, lines: Lines
) -> None:
    settings = settings_for(postgres.url)
    await migrate(settings)
    async with running(create_app(settings)) as client:
        assert await workers(client) == NONE
        postgres.stop()
        assert await workers(client) is None
    assert "workers unknown" in [line["message"] for line in lines()]
