"""What a request costs the database is asserted to the last round trip: slowness creeps in here.

Each is asked twice: the first time, statements are prepared.
"""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select, text

from app.database import Database, open_database
from app.main import create_app
from app.revisions import check_revision, load_revisions
from conftest import running, settings_for
from relay import Relay, open_relay

ONE = select(text("1"))


@pytest.fixture
async def measured(database_url: str) -> AsyncIterator[tuple[Relay, Database]]:
    async with (
        open_relay(database_url) as (relay, url),
        open_database(settings_for(url)) as database,
    ):
        yield relay, database


async def test_a_read_is_one_round_trip(measured: tuple[Relay, Database]) -> None:
    relay, database = measured
    for _ in range(2):
        relay.round_trips = 0
        await database.fetch(ONE)
    assert relay.round_trips == 1


async def test_a_transaction_adds_its_begin_and_its_end(
    measured: tuple[Relay, Database],
) -> None:
    relay, database = measured
    for _ in range(2):
        relay.round_trips = 0
        async with database.transaction() as transaction:
            await transaction.fetch(ONE)
            await transaction.fetch(ONE)
    assert relay.round_trips == 4


async def test_a_transaction_that_does_nothing_costs_nothing(
    measured: tuple[Relay, Database],
) -> None:
    relay, database = measured
    for _ in range(2):
        relay.round_trips = 0
        async with database.transaction():
            pass
    assert relay.round_trips == 0


async def test_the_checks_of_readiness_are_one_round_trip_each(
    measured: tuple[Relay, Database],
) -> None:
    relay, database = measured
    revisions = load_revisions()
    for _ in range(2):
        relay.round_trips = 0
        await database.ping()
        await check_revision(database, revisions)
    assert relay.round_trips == 2


async def test_probes_of_the_process_do_not_ask_the_database(database_url: str) -> None:
    async with (
        open_relay(database_url) as (relay, url),
        running(create_app(settings_for(url))) as client,
    ):
        for path in ("/health", "/health/live"):
            assert (await client.get(path)).status_code == 200
    assert relay.round_trips == 0
