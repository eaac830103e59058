"""API keys: forged, revoked, expired and rotated ones, and permissions that an account has lost."""

import hashlib
import uuid
from typing import Any

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import text

from app.db.session import open_database
from app.features.accounts import administration, api_keys
from app.features.accounts.schemas import NewKey
from app.main import create_app
from app.settings import Settings
from conftest import Lines, is_problem, running, settings_for
from counting_proxy import open_counting_proxy

EMAIL, PASSWORD = "admin@navy.example", "a nanosecond is 30 cm"
NEW = {"name": "nightly import", "scopes": ["accounts:read"]}
URL = "/accounts/me/api-keys"


async def administrator(client: AsyncClient, settings: Settings) -> tuple[uuid.UUID, Any]:
    """Return the id of a new administrator, and the headers of its requests."""
    account = {"email": EMAIL, "password": PASSWORD}
    admin_id = uuid.UUID((await client.post("/accounts", json=account)).json()["id"])
    async with open_database(settings) as database, database.session() as session:
        await administration.grant(session, None, admin_id, "admin")
    form = {"username": EMAIL, "password": PASSWORD}
    return admin_id, bearer(
        (await client.post("/accounts/login", data=form)).json()["access_token"]
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def execute(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    async with open_database(settings) as database, database.session() as session:
        result: Any = await session.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


async def use(client: AsyncClient, key: str) -> Response:
    return await client.get("/accounts", headers=bearer(key))


def is_invalid(response: Response) -> bool:
    return is_problem(response, 401, "invalid-token")


@pytest.fixture
async def headers(anonymous_client: AsyncClient, settings: Settings) -> Any:
    _, headers = await administrator(anonymous_client, settings)
    return headers


async def create(client: AsyncClient, headers: Any, **changes: Any) -> dict[str, Any]:
    created = await client.post(URL, json=NEW | changes, headers=headers)
    assert created.status_code == 201, created.text
    assert created.headers["Cache-Control"] == "no-store"
    key: dict[str, Any] = created.json()
    return key


async def test_key_opens_routes_with_its_scopes_only(
    anonymous_client: AsyncClient, headers: Any
) -> None:
    key = (await create(anonymous_client, headers))["key"]
    assert (await use(anonymous_client, key)).status_code == 200
    other = await anonymous_client.post(f"/accounts/{uuid.uuid4()}/disable", headers=bearer(key))
    assert is_problem(other, 403, "permission-required")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/accounts/me"), ("GET", URL), ("POST", URL), ("GET", "/accounts/me/export")],
)
async def test_key_cannot_manage_the_account(
    anonymous_client: AsyncClient, headers: Any, method: str, path: str
) -> None:
    key = (await create(anonymous_client, headers))["key"]
    refused = await anonymous_client.request(method, path, json=NEW, headers=bearer(key))
    assert is_invalid(refused)


async def test_list_shows_the_prefix_and_never_the_key(
    anonymous_client: AsyncClient, headers: Any, settings: Settings
) -> None:
    created = await create(anonymous_client, headers)
    listed = await anonymous_client.get(URL, headers=headers)
    assert listed.json() == [{k: v for k, v in created.items() if k != "key"}]
    assert created["key"].startswith(f"{created['prefix']}_")
    assert created["key"] not in listed.text
    (row,) = await execute(settings, "SELECT digest, api_keys::text FROM api_keys")
    assert row[0] == hashlib.sha256(created["key"].encode()).digest()
    assert created["key"].removeprefix(created["prefix"]) not in row[1]


async def test_forged_key_is_refused(anonymous_client: AsyncClient, headers: Any) -> None:
    key = (await create(anonymous_client, headers))["key"]
    last = "B" if key.endswith("A") else "A"
    for forged in (key[:-1] + last, key[:-1], key + "A", f"key_{'0' * 12}_{'A' * 43}", "key_"):
        assert is_invalid(await use(anonymous_client, forged))


async def test_revoked_key_is_refused_at_once(anonymous_client: AsyncClient, headers: Any) -> None:
    key = await create(anonymous_client, headers)
    path = f"{URL}/{key['id']}"
    assert (await anonymous_client.delete(path, headers=headers)).status_code == 204
    assert is_invalid(await use(anonymous_client, key["key"]))
    again = await anonymous_client.delete(path, headers=headers)
    assert is_problem(again, 404, "key-not-found")


async def test_expired_key_is_refused_and_deleted_with_the_next_one(
    anonymous_client: AsyncClient, headers: Any, settings: Settings
) -> None:
    key = await create(anonymous_client, headers)
    days = "SELECT round(extract(epoch FROM expires_at - now()) / 86400) FROM api_keys"
    assert await execute(settings, days) == [(90,)]
    await execute(settings, "UPDATE api_keys SET expires_at = now()")
    assert is_invalid(await use(anonymous_client, key["key"]))
    rotated = await anonymous_client.post(f"{URL}/{key['id']}/rotation", headers=headers)
    assert is_problem(rotated, 404, "key-not-found")
    await create(anonymous_client, headers, expires_in_days=1)
    assert await execute(settings, days) == [(1,)]


async def test_key_loses_the_permissions_that_its_account_loses(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    admin_id, headers = await administrator(anonymous_client, settings)
    key = await create(anonymous_client, headers)
    async with open_database(settings) as database, database.session() as session:
        await administration.revoke(session, None, admin_id, "admin")
    assert is_problem(await use(anonymous_client, key["key"]), 403, "permission-required")
    rotated = await anonymous_client.post(f"{URL}/{key['id']}/rotation", headers=headers)
    assert is_problem(rotated, 422, "scope-not-allowed")


async def test_keys_of_a_disabled_account_are_refused_until_it_is_enabled(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    admin_id, headers = await administrator(anonymous_client, settings)
    key = (await create(anonymous_client, headers))["key"]
    for change, status in ((administration.disable, 401), (administration.enable, 200)):
        async with open_database(settings) as database, database.session() as session:
            await change(session, None, admin_id)
        assert (await use(anonymous_client, key)).status_code == status


async def test_key_cannot_have_more_than_its_account(
    anonymous_client: AsyncClient, headers: Any
) -> None:
    new = NEW | {"scopes": ["accounts:read", "orders:burn"]}
    refused = await anonymous_client.post(URL, json=new, headers=headers)
    assert is_problem(refused, 422, "scope-not-allowed")
    assert "orders:burn" in refused.json()["detail"]


async def test_rotated_key_stays_valid_during_the_overlap(
    anonymous_client: AsyncClient, headers: Any, settings: Settings
) -> None:
    old = await create(anonymous_client, headers, expires_in_days=30)
    response = await anonymous_client.post(f"{URL}/{old['id']}/rotation", headers=headers)
    new = response.json()
    assert (new["name"], new["scopes"]) == (old["name"], old["scopes"])
    for key in (old, new):
        assert (await use(anonymous_client, key["key"])).status_code == 200
    hours = "SELECT round(extract(epoch FROM expires_at - now()) / 3600) FROM api_keys ORDER BY 1"
    assert await execute(settings, hours) == [(24,), (30 * 24,)]
    ended = "UPDATE api_keys SET expires_at = now() WHERE expires_at < now() + interval '2 days'"
    await execute(settings, ended)
    assert is_invalid(await use(anonymous_client, old["key"]))
    assert (await use(anonymous_client, new["key"])).status_code == 200


async def test_last_use_is_written_once_a_minute(
    database_url: str, settings: Settings, clean_tables: None
) -> None:
    del clean_tables
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        running(create_app(settings_for(url))) as client,
    ):
        _, headers = await administrator(client, settings)
        key = (await create(client, headers))["key"]
        trips = []
        for number in range(4):
            if number == 3:
                moved = "UPDATE api_keys SET last_used_at = last_used_at - interval '61 seconds'"
                await execute(settings, moved)
            proxy.round_trips = 0
            assert (await use(client, key)).status_code == 200
            trips.append(proxy.round_trips)
            (used,) = await execute(settings, "SELECT last_used_at FROM api_keys")
            trips.append(used[0])
    first, second, third, fourth = trips[1::2]
    assert first == second == third < fourth
    assert trips[4] + 1 == trips[6], "one round trip more for the write"


async def test_number_of_keys_is_limited_also_for_rotations(
    anonymous_client: AsyncClient, headers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MAX_KEYS", 1)
    key = await create(anonymous_client, headers)
    for path in (URL, f"{URL}/{key['id']}/rotation"):
        refused = await anonymous_client.post(path, json=NEW, headers=headers)
        assert is_problem(refused, 409, "too-many-keys")


async def test_disabled_account_creates_no_key(
    anonymous_client: AsyncClient, headers: Any, settings: Settings
) -> None:
    await execute(settings, "UPDATE accounts SET disabled_at = now()")
    refused = await anonymous_client.post(URL, json=NEW, headers=headers)
    assert is_problem(refused, 401, "unknown-account")


async def test_changes_are_logged_after_the_commit_only(
    anonymous_client: AsyncClient, headers: Any, settings: Settings, lines: Lines
) -> None:
    key = await create(anonymous_client, headers)
    rolled_back = pytest.raises(RuntimeError, match="roll back")
    async with open_database(settings) as database:
        ((account_id,),) = await execute(settings, "SELECT id FROM accounts")
        with rolled_back:
            async with database.session() as session:
                await api_keys.revoke(session, account_id, uuid.UUID(key["id"]))
                await api_keys.create(session, account_id, NewKey.model_validate(NEW))
                raise RuntimeError("roll back")
    await anonymous_client.delete(f"{URL}/{key['id']}", headers=headers)
    logged = [line["message"] for line in lines() if "key_id" in line]
    assert logged == ["API key created", "API key revoked"]


async def test_new_password_revokes_no_key(anonymous_client: AsyncClient, headers: Any) -> None:
    key = (await create(anonymous_client, headers))["key"]
    change = {"current_password": PASSWORD, "new_password": "a microsecond is 300 m"}
    changed = await anonymous_client.post("/accounts/me/password", json=change, headers=headers)
    assert changed.status_code == 200
    assert (await use(anonymous_client, key)).status_code == 200


async def test_export_has_the_keys_without_their_secrets(
    anonymous_client: AsyncClient, headers: Any
) -> None:
    key = await create(anonymous_client, headers)
    exported = await anonymous_client.get("/accounts/me/export", headers=headers)
    assert [found["prefix"] for found in exported.json()["api_keys"]] == [key["prefix"]]
    assert key["key"] not in exported.text
