"""Registering, logging in, and what strangers learn from the answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import text

from app.db.engine import create_engine
from app.db.session import Database, open_database
from app.features.accounts.passwords import Passwords
from app.main import create_app
from app.settings import Settings
from conftest import is_problem, running

EMAIL, PASSWORD = "grace@navy.example", "a nanosecond is 30 cm"
ACCOUNT = {"email": EMAIL, "password": PASSWORD}


def without_request_id(response: Response) -> tuple[dict[str, str], dict[str, Any]]:
    headers = {k: v for k, v in response.headers.items() if k != "x-request-id"}
    headers.pop("ratelimit", None)  # option: rate_limit
    return headers, {k: v for k, v in response.json().items() if k != "request_id"}


async def log_in(stranger: AsyncClient, **changes: str) -> Response:
    """As Swagger UI does."""
    form = {"grant_type": "password", "scope": "", "username": EMAIL, "password": PASSWORD}
    headers = {"Authorization": "Basic dW5kZWZpbmVkOg==", "X-Requested-With": "XMLHttpRequest"}
    return await stranger.post("/accounts/login", data=form | changes, headers=headers)


async def test_an_account_is_registered_and_logs_in(stranger: AsyncClient) -> None:
    registered = await stranger.post("/accounts", json=ACCOUNT)
    assert registered.status_code == 201, registered.text
    assert set(registered.json()) == {"id", "email", "created_at"}

    logged_in = await log_in(stranger)
    assert logged_in.status_code == 200, logged_in.text
    assert logged_in.headers["Cache-Control"] == "no-store"
    tokens = logged_in.json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 900)

    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    me = await stranger.get("/accounts/me", headers=headers)
    assert (me.status_code, me.json()) == (200, registered.json())


async def test_swagger_ui_finds_where_to_log_in(stranger: AsyncClient) -> None:
    await stranger.post("/accounts", json=ACCOUNT)
    document = (await stranger.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"].values()
    (scheme,) = [scheme for scheme in schemes if scheme["type"] == "oauth2"]
    place = f"/{scheme['flows']['password']['tokenUrl']}"
    form = {"grant_type": "password", "username": EMAIL, "password": PASSWORD}
    assert (await stranger.post(place, data=form)).json()["access_token"]
    content = document["paths"][place]["post"]["requestBody"]["content"]
    assert list(content) == ["application/x-www-form-urlencoded"]


@pytest.mark.parametrize("email", [EMAIL, "Grace@NAVY.example", "  grace@navy.example "])
async def test_an_address_has_one_account_however_it_is_written(
    stranger: AsyncClient, email: str
) -> None:
    await stranger.post("/accounts", json=ACCOUNT)
    again = await stranger.post("/accounts", json=ACCOUNT | {"email": email})
    assert is_problem(again, 409, "duplicate-account")
    assert (await log_in(stranger, username=email)).status_code == 200


async def test_of_two_who_register_at_once_one_wins(stranger: AsyncClient) -> None:
    answers = await asyncio.gather(*(stranger.post("/accounts", json=ACCOUNT) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "x" * 14},
        {"password": "x" * 129},
        {"email": "grace"},
        {"email": "grace@"},
        {"email": "grace@navy..example"},
        {"email": "gräce@navy.example"},
        {"email": "grace@navy.example\x00"},
        {"email": f"{'g' * 250}@navy.example"},
        {"admin": True},
    ],
)
async def test_what_is_no_account_is_refused(
    stranger: AsyncClient, changes: dict[str, Any]
) -> None:
    refused = await stranger.post("/accounts", json=ACCOUNT | changes)
    assert refused.status_code == 422
    assert str(next(iter(changes.values()))) not in refused.text


async def test_a_password_that_is_too_short_is_told_the_rule(stranger: AsyncClient) -> None:
    refused = await stranger.post("/accounts", json=ACCOUNT | {"password": "x" * 14})
    assert refused.json()["errors"] == [
        {
            "location": "body.password",
            "message": "String should have at least 15 characters",
            "type": "string_too_short",
        }
    ]


@pytest.mark.parametrize("length", [15, 128])
async def test_a_password_of_an_allowed_length_logs_in(stranger: AsyncClient, length: int) -> None:
    password = "pä" * 64
    await stranger.post("/accounts", json=ACCOUNT | {"password": password[:length]})
    assert (await log_in(stranger, password=password[:length])).status_code == 200


async def test_strangers_cannot_tell_who_has_an_account_by_logging_in(
    stranger: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stranger.post("/accounts", json=ACCOUNT)
    compared: list[bool] = []
    verify = Passwords.verify

    async def seen(self: Passwords, password: str, stored: str | None) -> tuple[bool, str | None]:
        compared.append(stored is None)
        return await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", seen)
    wrong = await log_in(stranger, password="wrong")
    unknown = await log_in(stranger, username="nobody@navy.example")
    for answer in (wrong, unknown):
        assert is_problem(answer, 401, "wrong-credentials")
    assert without_request_id(wrong) == without_request_id(unknown)
    assert wrong.headers["WWW-Authenticate"] == "Bearer"
    assert compared == [False, True], "both cost a comparison"


@pytest.mark.parametrize(
    "changes", [{"grant_type": "refresh_token"}, {"password": ""}, {"username": "nobody"}]
)
async def test_a_form_that_is_no_login_is_refused(
    stranger: AsyncClient, changes: dict[str, str]
) -> None:
    assert (await log_in(stranger, **changes)).status_code == 422


async def test_the_hash_is_replaced_by_a_better_one_at_log_in(
    stranger: AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.features.accounts.passwords.PASSES", 1)
    async with running(create_app(settings)) as older:
        await older.post("/accounts", json=ACCOUNT)
    assert "t=1" in await stored_hash(settings)
    assert (await log_in(stranger)).status_code == 200
    assert "t=2" in await stored_hash(settings)
    assert (await log_in(stranger)).status_code == 200


async def stored_hash(settings: Settings) -> str:
    engine = create_engine(settings, pool_size=1)
    async with engine.connect() as connection:
        stored = await connection.scalar(text("SELECT password_hash FROM accounts"))
    await engine.dispose()
    return str(stored)


async def test_a_token_of_an_account_that_is_gone_finds_nobody(
    stranger: AsyncClient, settings: Settings
) -> None:
    await stranger.post("/accounts", json=ACCOUNT)
    tokens = (await log_in(stranger)).json()
    engine = create_engine(settings, pool_size=1)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM accounts"))
    await engine.dispose()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert is_problem(await stranger.get("/accounts/me", headers=headers), 401, "unknown-account")
    refreshed = await stranger.post(
        "/accounts/refresh", json={"refresh_token": tokens["refresh_token"]}
    )
    assert is_problem(refreshed, 401, "session-ended")


async def test_no_connection_is_held_while_a_password_is_hashed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clean_tables: None
) -> None:
    """Else a crowd at the log-in would take the whole service's connections."""
    del clean_tables
    databases: list[Database] = []
    in_use: list[int] = []

    @asynccontextmanager
    async def open_and_remember(settings: Settings) -> AsyncIterator[Database]:
        async with open_database(settings) as database:
            databases.append(database)
            yield database

    async def seen(_self: Passwords, *arguments: str | None) -> Any:
        in_use.append(databases[0].limiter.in_use)
        return "hash" if len(arguments) == 1 else (True, None)

    monkeypatch.setattr("app.main.open_database", open_and_remember)
    monkeypatch.setattr(Passwords, "hash", seen)
    monkeypatch.setattr(Passwords, "verify", seen)
    async with running(create_app(settings)) as client:
        assert (await client.post("/accounts", json=ACCOUNT)).status_code == 201
        assert (await log_in(client)).status_code == 200
    assert in_use == [0, 0]
