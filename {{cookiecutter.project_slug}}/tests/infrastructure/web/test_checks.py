"""A late check fails its probe, continues, and keeps the connection that it opens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.db.engine import create_engine
from app.db.migrate import migrate
from app.main import create_app
from app.settings import Settings
from app.web.checks import Check, Health
from app.web.dependencies import DatabaseDep, Session
from conftest import running, running_with_state, settings_for
from counting_proxy import DelayingProxy
from postgres_server import Postgres
from processes import HANG_SECONDS
from sql import fetch

ONE = text("SELECT 1")
SLOW_ROLE = "slow:slow"  # and its password


@pytest.fixture(autouse=True)
def unshared_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the checks for each probe."""
    monkeypatch.setattr("app.web.checks.SHARED_SECONDS", 0.0)


class SlowDependency:
    """A dependency that connects when the test sets `connected`, and is fast afterwards.

    Attributes:
        connected: set by the test.
        runs: the number of checks that have begun.
        cancelled: the number of checks that were cancelled.
        is_down: whether a check fails once it is connected.
    """

    def __init__(self) -> None:
        self.connected = asyncio.Event()
        self.runs = 0
        self.cancelled = 0
        self.is_down = False

    async def check(self) -> None:
        self.runs += 1
        try:
            await self.connected.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.is_down:
            raise ConnectionError("down")


@pytest.fixture
def dependency() -> SlowDependency:
    return SlowDependency()


@pytest.fixture
async def health(dependency: SlowDependency) -> AsyncIterator[Health]:
    health = Health()
    health.add(Check("slow", dependency.check, timeout_seconds=0.05))
    yield health
    await health.close()


async def status(health: Health) -> str:
    return (await health.components())["slow"].status


async def test_late_check_continues_and_is_shared_by_the_next_rounds(
    health: Health, dependency: SlowDependency
) -> None:
    assert [await status(health) for _ in range(3)] == ["failed"] * 3
    assert (dependency.runs, dependency.cancelled) == (1, 0)
    health.add(Check("slow", dependency.check, timeout_seconds=20))
    round_ = asyncio.create_task(status(health))
    await asyncio.sleep(0)
    dependency.connected.set()
    assert await round_ == "ok"


async def test_result_of_a_late_check_is_not_reported_later(
    health: Health, dependency: SlowDependency
) -> None:
    assert await status(health) == "failed"
    dependency.connected.set()
    await asyncio.sleep(0.01)  # the late check succeeds
    dependency.is_down = True
    assert await status(health) == "failed"
    assert dependency.runs == 2


async def test_late_check_is_cancelled_after_its_limit_and_runs_again(
    health: Health, dependency: SlowDependency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.checks.LATE_SECONDS", 0.2)
    assert await status(health) == "failed"
    async with asyncio.timeout(20):
        while dependency.runs == 1:
            await status(health)
    assert dependency.cancelled == 1


async def test_close_cancels_late_checks(health: Health, dependency: SlowDependency) -> None:
    assert await status(health) == "failed"
    await health.close()
    assert dependency.cancelled == 1


async def test_late_check_is_awaited_when_timeouts_are_extended(
    health: Health, dependency: SlowDependency
) -> None:
    health.extend_timeouts()
    round_ = asyncio.create_task(status(health))
    await asyncio.sleep(0.1)  # twice the timeout of the check
    dependency.connected.set()
    assert await round_ == "ok"


@pytest.fixture(scope="module")
async def slow_database(postgres_server: Postgres) -> str:
    """Return the name of a database whose role has a password: two more round trips."""
    postgres_server.create_database()
    settings = settings_for(postgres_server.url)
    await migrate(settings)
    engine = create_engine(settings, pool_size=1)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE ROLE slow LOGIN SUPERUSER PASSWORD 'slow'"))
        postgres_server.require_password("slow")
        await connection.execute(text("SELECT pg_reload_conf()"))
    await engine.dispose()
    assert settings.database_url is not None
    return urlsplit(settings.database_url.get_secret_value()).path[1:]


def app_with_statements(settings: Settings) -> FastAPI:
    app = create_app(settings)

    @app.get("/_test/statement")
    async def read(database: DatabaseDep) -> int:
        return len(await fetch(database, ONE))

    @app.post("/_test/statement")
    async def write(session: Session) -> int:
        return len(await fetch(session, ONE))

    return app


@asynccontextmanager
async def open_slow_link(
    postgres_server: Postgres, slow_database: str, round_trip_seconds: float
) -> AsyncIterator[Settings]:
    socket = f"{postgres_server.socket_folder}/.s.PGSQL.5432"
    proxy = DelayingProxy(
        lambda: asyncio.open_unix_connection(socket), delay_seconds=round_trip_seconds / 2
    )
    async with proxy.listening() as port:
        yield settings_for(f"postgresql://{SLOW_ROLE}@127.0.0.1:{port}/{slow_database}")


@pytest.mark.parametrize("round_trip_seconds", [0.02, 0.2])
async def test_service_over_a_slow_link_to_the_database_becomes_ready_and_serves(
    postgres_server: Postgres, slow_database: str, round_trip_seconds: float
) -> None:
    async with (
        open_slow_link(postgres_server, slow_database, round_trip_seconds) as settings,
        running(app_with_statements(settings)) as client,
    ):
        async with asyncio.timeout(HANG_SECONDS):
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        for _ in range(2):
            probe, *responses = await asyncio.gather(
                client.get("/health/ready"),
                *(client.request(m, "/_test/statement") for m in ("GET", "POST") for _ in range(2)),
            )
            assert {response.status_code for response in responses} == {200}
            assert probe.json()["status"] == "ready"


async def test_app_check_over_a_slow_link_waits_for_the_first_connection(
    postgres_server: Postgres, slow_database: str
) -> None:
    async with (
        open_slow_link(postgres_server, slow_database, 0.3) as settings,
        running_with_state(create_app(settings)) as (_client, state),
    ):
        state["health"].extend_timeouts()
        components = await state["health"].components()
    assert {component.reason for component in components.values()} == {None}
