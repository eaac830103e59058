"""Values that fit the schema of a request, but no column."""

import json
import random
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI
from httpx import AsyncClient
from pydantic import BaseModel
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Executable,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    cast,
    insert,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.web.dependencies import ReadSession, Session
from conftest import running, settings_for
from small_app import create_small_app

PATH = "/_test/things"
ERRORS: dict[str, Executable] = {
    "division by zero": text("SELECT 1 / 0"),
    "too large": select(cast(literal(2**63, BigInteger), BigInteger)),
    "no UUID": text("SELECT CAST('x' AS uuid)"),
}
THINGS = Table(
    "_test_things",
    MetaData(),
    Column("name", Text),
    Column("big", BigInteger),
    Column("number", Integer),
    Column("small", SmallInteger),
    Column("price", Numeric(5, 2)),
    Column("at", DateTime(timezone=True)),
    Column("extra", JSONB),
    prefixes=["TEMPORARY"],
)


class Part(BaseModel):
    name: str | None = None


class Thing(Part):
    big: int | None = None
    number: int | None = None
    small: int | None = None
    price: Decimal | None = None
    at: datetime | None = None
    extra: dict[str, Any] | None = None
    parts: list[Part] = []


def application(database_url: str) -> FastAPI:
    app = create_small_app(settings_for(database_url), with_database=True)

    @app.post(PATH)
    async def create_thing(thing: Thing, session: Session) -> None:
        values = thing.model_dump()
        parts = values.pop("parts")
        await (await session.connection()).run_sync(THINGS.create)
        await session.execute(insert(THINGS), values)
        if parts:
            await session.execute(insert(THINGS), parts)
        await (await session.connection()).run_sync(THINGS.drop)

    @app.get(PATH)
    async def find_things(session: ReadSession, name: str = "", big: int = 0) -> None:
        await session.execute(select(cast(literal(name), Text), cast(literal(big), BigInteger)))

    @app.get(PATH + "/{name}")
    async def read_thing(name: str, session: ReadSession) -> None:
        await session.execute(select(cast(literal(name), Text)))

    @app.put(PATH)
    async def fail(session: ReadSession, cause: Annotated[str, Body(embed=True)]) -> None:
        await session.execute(ERRORS[cause])

    return app


@pytest.fixture(scope="module")
async def api(database_url: str) -> AsyncIterator[AsyncClient]:
    async with running(application(database_url)) as client:
        yield client


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"name": "a\0b"}, "body.name"),
        ({"parts": [{"name": "a"}, {"name": "\0"}]}, "body.parts.1.name"),
        ({"extra": {"a": ["\0"]}}, "body.extra.a.0"),
        ({"extra": {"a": {"\0": 1}}}, "body.extra.a.*"),
        ({"extra": {"a": "\ud800"}}, "body.extra.a"),
        ({"extra": {"a": float("inf")}}, "body.extra.a"),
        ({"big": 2**63}, "body.big"),
        ({"big": -(2**63) - 1}, "body.big"),
        ({"big": 10**400}, "body.big"),
        ({"big": 1, "number": 2**31}, "body.number"),
        ({"small": 2**15, "number": 1}, "body.small"),
        ({"number": 2**31, "small": 40000, "big": 2**31 - 1}, "body.number"),
        ({"at": "9999-12-31T23:59:59-14:00"}, "body.at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "body.at"),
    ],
    ids=str,
)
async def test_unstorable_value_of_a_body_is_named(
    api: AsyncClient, body: dict[str, Any], location: str
) -> None:
    response = await api.post(
        PATH, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422, response.text
    assert [error["location"] for error in response.json()["errors"]] == [location]


@pytest.mark.parametrize(
    ("query", "location"),
    [
        ("?name=%00", "query.name"),
        (f"?big={2**63}", "query.big"),
        (f"?big={'9' * 1000}", "query.big"),
        ("/a%00b", "path.name"),
    ],
)
async def test_unstorable_parameter_is_named(api: AsyncClient, query: str, location: str) -> None:
    response = await api.get(PATH + query)
    assert response.status_code == 422, response.text
    assert [error["location"] for error in response.json()["errors"]] == [location]


@pytest.mark.parametrize(
    "body",
    [
        {"price": "1234.5", "big": 2**40},
        {"small": 40000, "name": "40000"},
    ],
    ids=str,
)
async def test_field_is_not_named_if_another_may_be_the_cause(
    api: AsyncClient, body: dict[str, Any]
) -> None:
    response = await api.post(PATH, json=body)
    assert response.status_code == 422
    assert response.json()["detail"] == "A value is out of the range of its column."
    assert "errors" not in response.json()


@pytest.mark.parametrize("cause", ["division by zero", "too large", "no UUID"])
async def test_errors_of_the_service_itself_stay_internal(api: AsyncClient, cause: str) -> None:
    """The body is read once. A second time, this would wait for the client."""
    response = await api.put(PATH, json={"cause": cause})
    assert response.status_code == 500
    assert response.json()["type"] == "about:blank"


async def test_storable_values_succeed(api: AsyncClient) -> None:
    thing = {"name": "\x01", "big": 2**63 - 1, "number": -(2**31), "small": 1, "price": "999.99"}
    assert (await api.post(PATH, json=thing)).status_code == 200


@pytest.mark.parametrize("seed", range(20))
async def test_random_values_are_stored_or_refused(api: AsyncClient, seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311 - the values are no secrets
    odd = ["\0", "\ud800", "x", "", 2**63, -(2**31) - 1, 2**15, 1e308, float("nan"), 0, None]
    odd += ["9999-12-31T23:59:59-01:00", "0001-01-01", "1e-400", "NaN", True, [], {"\0": "\0"}]
    for _ in range(20):
        names = [*Thing.model_fields, "unknown"]
        body = {name: choose.choice(odd) for name in choose.sample(names, k=3)}
        response = await api.post(
            PATH, content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert response.status_code in {200, 422}, f"{body}: {response.text}"
