"""What a request costs the database is asserted to the last round trip: slowness creeps in here.

Each is asked twice: the first time, statements are prepared.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import select, text

from app.db.schema_version import check_schema_version
from app.db.session import Database, open_database
from app.main import create_app
from conftest import running, settings_for
from counting_proxy import CountingProxy, open_counting_proxy
from sql import fetch

ONE = select(text("1"))


@pytest.fixture
async def measured(database_url: str) -> AsyncIterator[tuple[CountingProxy, Database]]:
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        open_database(settings_for(url)) as database,
    ):
        yield proxy, database


async def round_trips_of(proxy: CountingProxy, ask: Callable[[], Awaitable[object]]) -> int:
    await ask()
    proxy.round_trips = 0
    await ask()
    return proxy.round_trips


async def test_a_read_is_one_round_trip(measured: tuple[CountingProxy, Database]) -> None:
    proxy, database = measured
    assert await round_trips_of(proxy, lambda: fetch(database, ONE)) == 1


@pytest.mark.parametrize(("statements", "round_trips"), [(0, 0), (1, 3), (2, 4)])
async def test_a_transaction_adds_its_begin_and_its_end_if_it_does_anything(
    measured: tuple[CountingProxy, Database], statements: int, round_trips: int
) -> None:
    proxy, database = measured

    async def change() -> None:
        async with database.session() as session:
            for _ in range(statements):
                await fetch(session, ONE)

    assert await round_trips_of(proxy, change) == round_trips


async def test_the_checks_of_readiness_are_one_round_trip_each(
    measured: tuple[CountingProxy, Database],
) -> None:
    proxy, database = measured
    assert await round_trips_of(proxy, database.ping) == 1
    assert await round_trips_of(proxy, lambda: check_schema_version(database)) == 1


async def test_statements_behind_a_transaction_pooler_take_two_round_trips(
    database_url: str,
) -> None:
    async with open_counting_proxy(database_url) as (proxy, url):
        settings = settings_for(url, database_unpooled_url=database_url)
        async with open_database(settings) as database:

            async def change() -> None:
                async with database.session() as session:
                    await fetch(session, ONE)

            assert await round_trips_of(proxy, lambda: fetch(database, ONE)) == 2
            assert await round_trips_of(proxy, change) == 1 + 2 + 1
            assert await round_trips_of(proxy, database.ping) == 2
            assert await round_trips_of(proxy, lambda: check_schema_version(database)) == 2


async def test_probes_of_the_process_do_not_ask_the_database(database_url: str) -> None:
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        running(create_app(settings_for(url))) as client,
    ):
        for path in ("/health", "/health/live"):
            assert (await client.get(path)).status_code == 200
    assert proxy.round_trips == 0
