"""Exact numbers of round trips to the database.

Each operation runs twice: the first run also prepares the statements.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import select, text

from app.db import engine
from app.db.schema_version import check_schema_version
from app.db.session import Database, open_database
from app.main import create_app
from conftest import running, settings_for
from counting_proxy import CountingProxy, open_counting_proxy
from sql import fetch

ONE = select(text("1"))


@pytest.fixture(autouse=True)
def no_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test no idle connection: a slow machine would add round trips."""
    monkeypatch.setattr(engine, "IDLE_SECONDS_BEFORE_PING", math.inf)


@pytest.fixture
async def proxied(database_url: str) -> AsyncIterator[tuple[CountingProxy, Database]]:
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        open_database(settings_for(url)) as database,
    ):
        yield proxy, database


@pytest.fixture
async def alembic_version(database_url: str) -> None:
    """Create the table that Alembic creates with the first migration."""
    async with open_database(settings_for(database_url)) as database, database.session() as session:
        table = "CREATE TABLE IF NOT EXISTS alembic_version (version_num varchar(32))"
        await session.execute(text(table))


async def count_round_trips(proxy: CountingProxy, run: Callable[[], Awaitable[object]]) -> int:
    await run()
    proxy.round_trips = 0
    await run()
    return proxy.round_trips


async def test_read_takes_one_round_trip(proxied: tuple[CountingProxy, Database]) -> None:
    proxy, database = proxied
    assert await count_round_trips(proxy, lambda: fetch(database, ONE)) == 1


@pytest.mark.parametrize(("statements", "round_trips"), [(0, 0), (1, 3), (2, 4)])
async def test_transaction_with_statements_adds_begin_and_commit(
    proxied: tuple[CountingProxy, Database], statements: int, round_trips: int
) -> None:
    proxy, database = proxied

    async def change() -> None:
        async with database.session() as session:
            for _ in range(statements):
                await fetch(session, ONE)

    assert await count_round_trips(proxy, change) == round_trips


@pytest.mark.usefixtures("alembic_version")
async def test_readiness_checks_take_one_round_trip_each(
    proxied: tuple[CountingProxy, Database],
) -> None:
    proxy, database = proxied
    assert await count_round_trips(proxy, database.ping) == 1
    assert await count_round_trips(proxy, lambda: check_schema_version(database)) == 1


@pytest.mark.usefixtures("alembic_version")
async def test_statements_behind_a_transaction_pooler_take_two_round_trips(
    database_url: str,
) -> None:
    async with open_counting_proxy(database_url) as (proxy, url):
        settings = settings_for(url, database_unpooled_url=database_url)
        async with open_database(settings) as database:

            async def change() -> None:
                async with database.session() as session:
                    await fetch(session, ONE)

            assert await count_round_trips(proxy, lambda: fetch(database, ONE)) == 2
            assert await count_round_trips(proxy, change) == 1 + 2 + 1
            assert await count_round_trips(proxy, database.ping) == 2
            assert await count_round_trips(proxy, lambda: check_schema_version(database)) == 2


async def test_liveness_probes_take_no_round_trip(database_url: str) -> None:
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        running(create_app(settings_for(url))) as client,
    ):
        for path in ("/health", "/health/live"):
            assert (await client.get(path)).status_code == 200
    assert proxy.round_trips == 0
