"""Sessions: refresh, token reuse, logout, expiry, and the information that is stored and logged."""

import asyncio
import base64
import hashlib
import json
import re
import secrets
from typing import Any

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import text

from app.db.engine import create_engine
from app.main import create_app
from app.settings import Settings
from conftest import Lines, is_problem, running, settings_for
from counting_proxy import open_counting_proxy
from processes import ROOT

EMAIL, PASSWORD = "grace@navy.example", "a nanosecond is 30 cm"


@pytest.fixture
async def client(anonymous_client: AsyncClient) -> AsyncClient:
    """Register an account, and return a client without a token."""
    await anonymous_client.post("/accounts", json={"email": EMAIL, "password": PASSWORD})
    return anonymous_client


async def log_in(client: AsyncClient) -> dict[str, Any]:
    response = await client.post("/accounts/login", data={"username": EMAIL, "password": PASSWORD})
    tokens: dict[str, Any] = response.json()
    return tokens


async def refresh(client: AsyncClient, token: str) -> Response:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await client.post("/accounts/login", data=form)


async def execute(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    engine = create_engine(settings, pool_size=1)
    async with engine.begin() as connection:
        result = await connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    await engine.dispose()
    return rows


def has_ended(response: Response) -> bool:
    is_ended = is_problem(response, 401, "session-ended")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    return is_ended and response.json()["error"] == "invalid_grant"


async def pass_time(settings: Settings, seconds: int) -> None:
    """Let the last use of every session be so many seconds earlier."""
    moved = "UPDATE sessions SET last_used_at = last_used_at - interval '1 second' * "
    await execute(settings, f"{moved}{seconds}")


async def test_refresh_token_is_exchanged_for_new_tokens(client: AsyncClient) -> None:
    first = await log_in(client)
    response = await refresh(client, first["refresh_token"])
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "no-store"
    second = response.json()
    assert second["refresh_token"] != first["refresh_token"]
    headers = {"Authorization": f"Bearer {second['access_token']}"}
    assert (await client.get("/accounts/me", headers=headers)).json()["email"] == EMAIL
    assert (await refresh(client, second["refresh_token"])).status_code == 200


async def test_reused_refresh_token_ends_the_session(
    client: AsyncClient, settings: Settings
) -> None:
    stolen = (await log_in(client))["refresh_token"]
    other = (await log_in(client))["refresh_token"]
    latest = (await refresh(client, stolen)).json()["refresh_token"]
    await pass_time(settings, 11)
    assert has_ended(await refresh(client, stolen))
    assert has_ended(await refresh(client, latest))
    assert (await refresh(client, other)).status_code == 200, "other sessions continue"


async def test_old_refresh_token_ends_the_session(client: AsyncClient) -> None:
    token = first = (await log_in(client))["refresh_token"]
    for _ in range(3):
        token = (await refresh(client, token)).json()["refresh_token"]
    assert has_ended(await refresh(client, first))
    assert has_ended(await refresh(client, token))


async def test_concurrent_refreshes_get_the_same_token_and_continue_the_session(
    client: AsyncClient,
) -> None:
    token = (await log_in(client))["refresh_token"]
    for _ in range(20):
        responses = await asyncio.gather(*(refresh(client, token) for _ in range(4)))
        assert [response.status_code for response in responses] == [200] * 4
        (token,) = {response.json()["refresh_token"] for response in responses}


async def test_repeated_refresh_after_a_lost_response_returns_the_same_token(
    client: AsyncClient, settings: Settings
) -> None:
    token = (await log_in(client))["refresh_token"]
    lost = (await refresh(client, token)).json()["refresh_token"]
    await pass_time(settings, 9)
    repeated = await refresh(client, token)
    assert repeated.json()["refresh_token"] == lost
    await pass_time(settings, 2)
    assert has_ended(await refresh(client, token)), "a repetition does not extend the grace period"


async def test_concurrent_replays_after_the_grace_period_end_the_session_once(
    client: AsyncClient, settings: Settings, lines: Lines
) -> None:
    token = (await log_in(client))["refresh_token"]
    latest = (await refresh(client, token)).json()["refresh_token"]
    await pass_time(settings, 11)
    responses = await asyncio.gather(*(refresh(client, token) for _ in range(8)))
    assert all(has_ended(response) for response in responses)
    assert has_ended(await refresh(client, latest))
    messages = [line["message"] for line in lines()]
    assert messages.count("session ended: refresh token reused") == 1


async def test_concurrent_replay_and_refresh_after_the_grace_period_end_the_session(
    client: AsyncClient, settings: Settings
) -> None:
    token = (await log_in(client))["refresh_token"]
    latest = (await refresh(client, token)).json()["refresh_token"]
    await pass_time(settings, 11)
    replay, refreshed = await asyncio.gather(refresh(client, token), refresh(client, latest))
    if refreshed.status_code == 200:
        latest = refreshed.json()["refresh_token"]
    assert has_ended(await refresh(client, latest))
    assert replay.status_code == 200 or has_ended(replay)


async def test_refresh_without_a_grace_period_ends_the_session_at_the_second_use(
    settings: Settings, clean_tables: None
) -> None:
    del clean_tables
    without_grace = settings.model_copy(update={"refresh_grace_seconds": 0})
    async with running(create_app(without_grace)) as client:
        await client.post("/accounts", json={"email": EMAIL, "password": PASSWORD})
        token = (await log_in(client))["refresh_token"]
        assert (await refresh(client, token)).status_code == 200
        assert has_ended(await refresh(client, token))


async def test_refresh_takes_one_round_trip(database_url: str, clean_tables: None) -> None:
    del clean_tables
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        running(create_app(settings_for(url))) as client,
    ):
        await client.post("/accounts", json={"email": EMAIL, "password": PASSWORD})
        token = (await log_in(client))["refresh_token"]
        for _ in range(2):  # the first also prepares the statement
            proxy.round_trips = 0
            token = (await refresh(client, token)).json()["refresh_token"]
    assert proxy.round_trips == 1


async def test_repeated_logout_succeeds_and_ends_the_session(client: AsyncClient) -> None:
    token = (await log_in(client))["refresh_token"]
    for _ in range(2):
        response = await client.post("/accounts/logout", json={"refresh_token": token})
        assert (response.status_code, response.content) == (204, b"")
    assert has_ended(await refresh(client, token))


async def test_session_without_a_refresh_expires(client: AsyncClient, settings: Settings) -> None:
    token = (await log_in(client))["refresh_token"]
    days = "SELECT round(extract(epoch FROM expires_at - now()) / 86400) FROM sessions"
    assert await execute(settings, days) == [(30,)]
    await execute(settings, "UPDATE sessions SET expires_at = now() + interval '1 day'")
    token = (await refresh(client, token)).json()["refresh_token"]
    assert await execute(settings, days) == [(30,)], "a refresh extends the session"
    await execute(settings, "UPDATE sessions SET expires_at = now()")
    assert has_ended(await refresh(client, token))


async def test_login_deletes_expired_sessions(client: AsyncClient, settings: Settings) -> None:
    await log_in(client)
    await execute(settings, "UPDATE sessions SET expires_at = now()")
    await log_in(client)
    await log_in(client)
    assert await execute(settings, "SELECT count(*) FROM sessions") == [(2,)]


def unknown_token() -> str:
    return secrets.token_urlsafe(48)


async def test_unknown_refresh_token_is_refused_and_ends_no_session(
    client: AsyncClient, settings: Settings
) -> None:
    await log_in(client)
    assert has_ended(await refresh(client, unknown_token()))
    response = await client.post("/accounts/logout", json={"refresh_token": unknown_token()})
    assert response.status_code == 204
    assert await execute(settings, "SELECT count(*) FROM sessions") == [(1,)]


@pytest.mark.parametrize("token", ["", "x" * 63, "x" * 65, "é" * 64, "=" * 64, "x" * 63 + "\n"])
async def test_malformed_refresh_token_is_refused(client: AsyncClient, token: str) -> None:
    response = await refresh(client, token)
    if token:
        assert has_ended(response)
    else:
        assert response.status_code == 422


@pytest.mark.parametrize(
    "form",
    [
        {"grant_type": "client_credentials"},
        {"grant_type": "refresh_token"},
        {"grant_type": "password", "username": EMAIL},
        {"username": EMAIL},
        {},
    ],
)
async def test_invalid_form_of_the_token_endpoint_names_the_error(
    client: AsyncClient, form: dict[str, str]
) -> None:
    response = await client.post("/accounts/login", data=form)
    assert is_problem(response, 422, "invalid-token-request")
    is_unsupported = form.get("grant_type") == "client_credentials"
    expected = "unsupported_grant_type" if is_unsupported else "invalid_request"
    assert response.json()["error"] == expected


async def test_database_stores_no_password_and_no_token(
    client: AsyncClient, settings: Settings
) -> None:
    token = (await log_in(client))["refresh_token"]
    successor = (await refresh(client, token)).json()["refresh_token"]
    (digests,) = await execute(settings, "SELECT digest, previous_digest FROM sessions")
    secrets_sent = [base64.urlsafe_b64decode(text)[16:] for text in (successor, token)]
    assert [len(value) for value in (*digests, *secrets_sent)] == [32] * 4
    assert [hashlib.sha256(secret).digest() for secret in secrets_sent] == list(digests)
    ((stored,),) = await execute(settings, "SELECT password_hash FROM accounts")
    assert PASSWORD not in stored


PAGE = ROOT / "docs" / "accounts.md"


async def test_statements_of_the_accounts_page_revoke_sessions_and_delete_accounts(
    client: AsyncClient, settings: Settings
) -> None:
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    log_out_account, delete_account, log_out_all = block.strip().splitlines()
    for statement in (log_out_account, log_out_all):
        token = (await log_in(client))["refresh_token"]
        await execute(settings, statement)
        assert has_ended(await refresh(client, token))
    assert await execute(settings, "SELECT count(*) FROM accounts") == [(1,)]
    await execute(settings, delete_account)
    assert await execute(settings, "SELECT count(*) FROM accounts") == [(0,)]


async def test_log_identifies_the_account_by_id_only(
    client: AsyncClient, settings: Settings, lines: Lines
) -> None:
    tokens = await log_in(client)
    await client.post("/accounts", json={"email": EMAIL, "password": PASSWORD})
    await client.post("/accounts/login", data={"username": EMAIL, "password": "not-this-one"})
    await client.post("/accounts/login", data={"username": "grace", "password": PASSWORD})
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    await client.get("/accounts/me", headers=headers)
    await refresh(client, tokens["refresh_token"])
    await pass_time(settings, 11)
    await refresh(client, tokens["refresh_token"])
    logged = json.dumps(lines())
    ((account_id,),) = await execute(settings, "SELECT id FROM accounts")
    assert "session ended: refresh token reused" in logged
    assert str(account_id) in logged
    for secret in (EMAIL, "grace", PASSWORD, "not-this-one", *map(str, tokens.values())):
        assert secret in {"bearer", "900"} or secret not in logged
