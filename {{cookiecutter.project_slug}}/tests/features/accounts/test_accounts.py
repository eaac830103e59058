"""Registration and login, and the information that anonymous clients get."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import text

from app.db.engine import create_engine
from app.db.session import Database, open_database
from app.errors import ServiceError
from app.features.accounts.errors import (
    AccountDisabled,
    AccountNotFound,
    DuplicateAccount,
    InvalidLink,
    InvalidTokenRequest,
    KeyNotFound,
    ScopeNotAllowed,
    SessionEnded,
    SessionNotFound,
    TooManyAttempts,
    TooManyKeys,
    UnknownAccount,
    UnknownRole,
    WrongCredentials,
    WrongPassword,
)
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


async def log_in(anonymous_client: AsyncClient, **changes: str) -> Response:
    """Log in as Swagger UI does."""
    form = {"grant_type": "password", "scope": "", "username": EMAIL, "password": PASSWORD}
    headers = {"Authorization": "Basic dW5kZWZpbmVkOg==", "X-Requested-With": "XMLHttpRequest"}
    return await anonymous_client.post("/accounts/login", data=form | changes, headers=headers)


async def test_registered_account_logs_in(anonymous_client: AsyncClient) -> None:
    registered = await anonymous_client.post("/accounts", json=ACCOUNT)
    assert registered.status_code == 201, registered.text
    fields = {"id", "email", "email_verified_at", "has_password", "created_at"}
    assert set(registered.json()) == fields

    logged_in = await log_in(anonymous_client)
    assert logged_in.status_code == 200, logged_in.text
    assert logged_in.headers["Cache-Control"] == "no-store"
    tokens = logged_in.json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 900)

    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    me = await anonymous_client.get("/accounts/me", headers=headers)
    assert (me.status_code, me.json()) == (200, registered.json())


async def test_openapi_document_names_the_login_route_for_swagger_ui(
    anonymous_client: AsyncClient,
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT)
    document = (await anonymous_client.get("/openapi.json")).json()
    schemes = document["components"]["securitySchemes"].values()
    (scheme,) = [scheme for scheme in schemes if scheme["type"] == "oauth2"]
    path = f"/{scheme['flows']['password']['tokenUrl']}"
    form = {"grant_type": "password", "username": EMAIL, "password": PASSWORD}
    assert (await anonymous_client.post(path, data=form)).json()["access_token"]
    content = document["paths"][path]["post"]["requestBody"]["content"]
    assert list(content) == ["application/x-www-form-urlencoded"]


@pytest.mark.parametrize("email", [EMAIL, "Grace@NAVY.example", "  grace@navy.example "])
async def test_register_with_the_same_address_in_another_form_returns_409(
    anonymous_client: AsyncClient, email: str
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT)
    again = await anonymous_client.post("/accounts", json=ACCOUNT | {"email": email})
    assert is_problem(again, 409, "duplicate-account")
    assert (await log_in(anonymous_client, username=email)).status_code == 200


async def test_concurrent_registrations_of_an_address_one_succeeds(
    anonymous_client: AsyncClient,
) -> None:
    responses = await asyncio.gather(
        *(anonymous_client.post("/accounts", json=ACCOUNT) for _ in range(2))
    )
    assert sorted(response.status_code for response in responses) == [201, 409]


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "x" * 14},
        {"password": "x" * 129},
        {"email": "grace"},
        {"email": "grace@"},
        {"email": "grace@navy..example"},
        {"email": "gräce@navy.example"},
        # Look-alikes: Cyrillic a, fullwidth g, zero-width space, and the Kelvin sign, whose lower
        # case is k.
        {"email": "gr\u0430ce@navy.example"},
        {"email": "\uff47race@navy.example"},
        {"email": "grace\u200b@navy.example"},
        {"email": "\u212aate@navy.example"},
        {"email": "grace@navy.example\x00"},
        {"email": f"{'g' * 250}@navy.example"},
        {"email": "=?utf-8?q?mallory=40evil.example=2c?=@navy.example"},
        {"admin": True},
    ],
)
async def test_invalid_account_returns_422_without_repeating_it(
    anonymous_client: AsyncClient, changes: dict[str, Any]
) -> None:
    refused = await anonymous_client.post("/accounts", json=ACCOUNT | changes)
    assert refused.status_code == 422
    assert str(next(iter(changes.values()))) not in refused.text


async def test_short_password_returns_the_minimum_length(anonymous_client: AsyncClient) -> None:
    refused = await anonymous_client.post("/accounts", json=ACCOUNT | {"password": "x" * 14})
    assert refused.json()["errors"] == [
        {
            "location": "body.password",
            "message": "String should have at least 15 characters",
            "type": "string_too_short",
        }
    ]


@pytest.mark.parametrize("length", [15, 128])
async def test_password_of_an_allowed_length_logs_in(
    anonymous_client: AsyncClient, length: int
) -> None:
    password = "pä" * 64
    await anonymous_client.post("/accounts", json=ACCOUNT | {"password": password[:length]})
    assert (await log_in(anonymous_client, password=password[:length])).status_code == 200


async def test_login_with_wrong_password_and_unknown_account_are_indistinguishable(
    anonymous_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT)
    without_account: list[bool] = []
    verify = Passwords.verify

    async def spy(self: Passwords, password: str, stored: str | None) -> tuple[bool, str | None]:
        without_account.append(stored is None)
        return await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", spy)
    wrong = await log_in(anonymous_client, password="wrong")
    unknown = await log_in(anonymous_client, username="unknown@navy.example")
    for response in (wrong, unknown):
        assert is_problem(response, 401, "wrong-credentials")
        assert response.json()["error"] == "invalid_grant"
    assert without_request_id(wrong) == without_request_id(unknown)
    assert wrong.headers["WWW-Authenticate"] == "Bearer"
    assert without_account == [False, True], "both logins verify a password"


@pytest.mark.parametrize("changes", [{"password": "x" * 10_000}, {"username": "no-address"}])
async def test_login_with_values_that_no_account_has_returns_401(
    anonymous_client: AsyncClient, changes: dict[str, str]
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT)
    assert is_problem(await log_in(anonymous_client, **changes), 401, "wrong-credentials")


async def test_login_replaces_a_weaker_hash(
    anonymous_client: AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.features.accounts.passwords.PASSES", 1)
    async with running(create_app(settings)) as older:
        await older.post("/accounts", json=ACCOUNT)
    assert "t=1" in await stored_hash(settings)
    assert (await log_in(anonymous_client)).status_code == 200
    assert "t=2" in await stored_hash(settings)
    assert (await log_in(anonymous_client)).status_code == 200


async def stored_hash(settings: Settings) -> str:
    engine = create_engine(settings, pool_size=1)
    async with engine.connect() as connection:
        stored = await connection.scalar(text("SELECT password_hash FROM accounts"))
    await engine.dispose()
    return str(stored)


async def test_tokens_of_a_deleted_account_return_401(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT)
    tokens = (await log_in(anonymous_client)).json()
    engine = create_engine(settings, pool_size=1)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM accounts"))
    await engine.dispose()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert is_problem(
        await anonymous_client.get("/accounts/me", headers=headers), 401, "unknown-account"
    )
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    refreshed = await anonymous_client.post("/accounts/login", data=form)
    assert is_problem(refreshed, 401, "session-ended")


async def test_password_hashing_holds_no_connection(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clean_tables: None
) -> None:
    """Concurrent logins must not exhaust the connections of the service."""
    del clean_tables
    databases: list[Database] = []
    in_use: list[int] = []

    @asynccontextmanager
    async def open_and_record(settings: Settings) -> AsyncIterator[Database]:
        async with open_database(settings) as database:
            databases.append(database)
            yield database

    async def spy(_self: Passwords, *arguments: str | None) -> Any:
        in_use.append(databases[0].limiter.in_use)
        return "hash" if len(arguments) == 1 else (True, None)

    monkeypatch.setattr("app.main.open_database", open_and_record)
    monkeypatch.setattr(Passwords, "hash", spy)
    monkeypatch.setattr(Passwords, "verify", spy)
    async with running(create_app(settings)) as client:
        assert (await client.post("/accounts", json=ACCOUNT)).status_code == 201
        assert (await log_in(client)).status_code == 200
    assert in_use == [0, 0]


def test_types_and_titles_of_errors_are_stable() -> None:
    kinds: list[type[ServiceError]] = [
        DuplicateAccount,
        UnknownAccount,
        WrongCredentials,
        SessionEnded,
        InvalidTokenRequest,
        InvalidLink,
        SessionNotFound,
        WrongPassword,
        TooManyAttempts,
        AccountDisabled,
        AccountNotFound,
        UnknownRole,
        KeyNotFound,
        ScopeNotAllowed,
        TooManyKeys,
    ]
    assert {kind.type: kind.title for kind in kinds} == {
        "urn:problem:duplicate-account": "Duplicate Account",
        "urn:problem:unknown-account": "Unknown Account",
        "urn:problem:wrong-credentials": "Wrong Credentials",
        "urn:problem:session-ended": "Session Ended",
        "urn:problem:invalid-token-request": "Invalid Token Request",
        "urn:problem:invalid-link": "Invalid Link",
        "urn:problem:session-not-found": "Session Not Found",
        "urn:problem:wrong-password": "Wrong Password",
        "urn:problem:too-many-attempts": "Too Many Attempts",
        "urn:problem:account-disabled": "Account Disabled",
        "urn:problem:account-not-found": "Account Not Found",
        "urn:problem:unknown-role": "Unknown Role",
        "urn:problem:key-not-found": "Key Not Found",
        "urn:problem:scope-not-allowed": "Scope Not Allowed",
        "urn:problem:too-many-keys": "Too Many Keys",
    }
