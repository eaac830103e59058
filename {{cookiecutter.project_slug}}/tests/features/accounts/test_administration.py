"""Roles and permissions, the list of accounts, and disabled accounts."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import select

from app.auth.roles import ROLES, permissions_of
from app.db.session import open_database
from app.features.accounts import administration
from app.features.accounts.errors import AccountNotFound, UnknownRole
from app.features.accounts.models import AdministrativeAct
from app.settings import Settings
from conftest import Lines, is_problem

ADMIN, USER = "admin@navy.example", "grace@navy.example"
PASSWORD = "a nanosecond is 30 cm"


async def register(client: AsyncClient, email: str) -> uuid.UUID:
    account = {"email": email, "password": PASSWORD}
    registered = await client.post("/accounts", json=account)
    return uuid.UUID(registered.json()["id"])


async def log_in(client: AsyncClient, email: str) -> Response:
    return await client.post("/accounts/login", data={"username": email, "password": PASSWORD})


async def refresh(client: AsyncClient, token: str) -> Response:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await client.post("/accounts/login", data=form)


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def act(settings: Settings, change: Callable[..., Awaitable[Any]], *values: Any) -> Any:
    """Change an account as the command line does."""
    async with open_database(settings) as database, database.session() as session:
        return await change(session, None, *values)


async def administrator(client: AsyncClient, settings: Settings) -> tuple[uuid.UUID, Any]:
    """Return the id of a new administrator, and the headers of its requests."""
    admin_id = await register(client, ADMIN)
    await act(settings, administration.grant, admin_id, "admin")
    return admin_id, bearer((await log_in(client, ADMIN)).json())


async def test_route_needs_the_permission_and_the_document_names_it(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await register(anonymous_client, USER)
    headers = bearer((await log_in(anonymous_client, USER)).json())
    assert is_problem(await anonymous_client.get("/accounts"), 401, "token-required")
    refused = await anonymous_client.get("/accounts", headers=headers)
    assert is_problem(refused, 403, "permission-required")
    challenge = 'Bearer error="insufficient_scope", scope="accounts:read"'
    assert refused.headers["WWW-Authenticate"] == challenge
    for change in ("disable", "enable"):
        url = f"/accounts/{uuid.uuid4()}/{change}"
        assert (await anonymous_client.post(url, headers=headers)).status_code == 403
    _, headers = await administrator(anonymous_client, settings)
    assert (await anonymous_client.get("/accounts", headers=headers)).status_code == 200

    paths = (await anonymous_client.get("/openapi.json")).json()["paths"]
    listed = paths["/accounts"]["get"]
    assert listed["security"] == [{"OAuth2PasswordBearer": ["accounts:read"]}]
    assert {"401", "403"} <= set(listed["responses"])
    assert "403" not in paths["/accounts/me"]["get"]["responses"]


async def test_role_takes_effect_at_the_next_refresh_and_ends_there(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    account_id = await register(anonymous_client, USER)
    tokens = (await log_in(anonymous_client, USER)).json()
    for change, status in ((administration.grant, 200), (administration.revoke, 403)):
        before = await anonymous_client.get("/accounts", headers=bearer(tokens))
        assert before.status_code != status
        await act(settings, change, account_id, "admin")
        tokens = (await refresh(anonymous_client, tokens["refresh_token"])).json()
        after = await anonymous_client.get("/accounts", headers=bearer(tokens))
        assert after.status_code == status


async def test_change_of_the_password_keeps_the_roles(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    _, headers = await administrator(anonymous_client, settings)
    change = {"current_password": PASSWORD, "new_password": "a microsecond is 300 m"}
    changed = await anonymous_client.post("/accounts/me/password", json=change, headers=headers)
    listed = await anonymous_client.get("/accounts", headers=bearer(changed.json()))
    assert listed.status_code == 200


async def test_disabled_account_gets_no_new_token_for_a_change_of_its_password(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    account_id = await register(anonymous_client, USER)
    headers = bearer((await log_in(anonymous_client, USER)).json())
    await act(settings, administration.disable, account_id)
    change = {"current_password": PASSWORD, "new_password": "a microsecond is 300 m"}
    refused = await anonymous_client.post("/accounts/me/password", json=change, headers=headers)
    assert is_problem(refused, 401, "unknown-account")


@pytest.mark.parametrize(
    ("change", "values"), [(administration.disable, ()), (administration.revoke, ("admin",))]
)
async def test_former_administrator_with_an_access_token_changes_no_account(
    anonymous_client: AsyncClient, settings: Settings, change: Any, values: tuple[str, ...]
) -> None:
    admin_id, headers = await administrator(anonymous_client, settings)
    await act(settings, change, admin_id, *values)
    for path in ("disable", "enable"):
        refused = await anonymous_client.post(f"/accounts/{admin_id}/{path}", headers=headers)
        assert is_problem(refused, 401, "role-revoked")


async def test_accounts_are_listed_in_pages(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    for letter in "bca":
        await register(anonymous_client, f"{letter}@navy.example")
    _, headers = await administrator(anonymous_client, settings)
    emails: list[str] = []
    query: dict[str, Any] = {"limit": 3, "sort": "-email"}
    for _ in range(2):
        page = await anonymous_client.get("/accounts", params=query, headers=headers)
        emails += [item["email"] for item in page.json()["items"]]
        query["cursor"] = page.json()["next_cursor"]
    assert emails == ["c@navy.example", "b@navy.example", ADMIN, "a@navy.example"]
    assert query["cursor"] is None
    assert "password_hash" not in page.text
    assert "argon2" not in page.text
    own = await anonymous_client.get("/accounts/me", headers=headers)
    for response in (page, own):
        assert response.headers["Cache-Control"] == "no-store", "it has addresses"
    wrong = await anonymous_client.get("/accounts", params={"cursor": "x"}, headers=headers)
    assert is_problem(wrong, 422, "invalid-cursor")


async def test_disabled_account_can_neither_log_in_nor_refresh_until_it_is_enabled(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    _, headers = await administrator(anonymous_client, settings)
    account_id = await register(anonymous_client, USER)
    tokens = (await log_in(anonymous_client, USER)).json()
    url = f"/accounts/{account_id}"
    for _ in range(2):
        disabled = await anonymous_client.post(f"{url}/disable", headers=headers)
        assert disabled.json()["disabled_at"]
    assert (await refresh(anonymous_client, tokens["refresh_token"])).status_code == 401
    refused = await log_in(anonymous_client, USER)
    assert is_problem(refused, 401, "account-disabled")
    assert refused.json()["error"] == "invalid_grant"
    wrong = {"username": USER, "password": "wrong"}
    guessed = await anonymous_client.post("/accounts/login", data=wrong)
    assert is_problem(guessed, 401, "wrong-credentials"), "only the owner gets the reason"
    sessions = await anonymous_client.get("/accounts/me/sessions", headers=bearer(tokens))
    assert sessions.json() == [], "an access token is valid until it expires"

    enabled = await anonymous_client.post(f"{url}/enable", headers=headers)
    assert enabled.json()["disabled_at"] is None
    assert (await log_in(anonymous_client, USER)).status_code == 200
    assert (await refresh(anonymous_client, tokens["refresh_token"])).status_code == 401


async def test_session_that_began_during_the_disabling_is_not_refreshed(
    anonymous_client: AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end_none(*_: Any) -> None: ...

    monkeypatch.setattr(administration, "end_all", end_none)
    account_id = await register(anonymous_client, USER)
    tokens = (await log_in(anonymous_client, USER)).json()
    await act(settings, administration.disable, account_id)
    assert (await refresh(anonymous_client, tokens["refresh_token"])).status_code == 401


async def test_each_act_is_a_row_and_a_line_of_the_log(
    anonymous_client: AsyncClient, settings: Settings, lines: Lines
) -> None:
    admin_id, headers = await administrator(anonymous_client, settings)
    account_id = await register(anonymous_client, USER)
    for change in ("disable", "enable"):
        await anonymous_client.post(f"/accounts/{account_id}/{change}", headers=headers)
    await act(settings, administration.revoke, admin_id, "admin")
    expected = [
        (None, "grant", admin_id, "admin"),
        (admin_id, "disable", account_id, None),
        (admin_id, "enable", account_id, None),
        (None, "revoke", admin_id, "admin"),
    ]
    async with open_database(settings) as database, database.read_session() as session:
        rows = (await session.scalars(select(AdministrativeAct).order_by("id"))).all()
    assert [(r.actor_id, r.act.value, r.target_id, r.role) for r in rows] == expected
    assert all(row.created_at for row in rows)
    logged = [line for line in lines() if line["message"] == "administrative act"]
    assert [(line["actor_id"], line["act"], line["target_id"]) for line in logged] == [
        (str(actor or "command line"), name, str(target)) for actor, name, target, _ in expected
    ]


async def test_unknown_account_or_role_is_refused_and_not_recorded(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    admin_id, headers = await administrator(anonymous_client, settings)
    refused = await anonymous_client.post(f"/accounts/{uuid.uuid4()}/disable", headers=headers)
    assert is_problem(refused, 404, "account-not-found")
    with pytest.raises(UnknownRole, match="use one of admin"):
        await act(settings, administration.grant, admin_id, "king")
    with pytest.raises(AccountNotFound):
        await act(settings, administration.grant, uuid.uuid4(), "admin")
    async with open_database(settings) as database, database.read_session() as session:
        assert len((await session.scalars(select(AdministrativeAct))).all()) == 1


async def test_repeated_grant_stores_a_role_once(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    account_id = await register(anonymous_client, USER)
    for _ in range(2):
        account = await act(settings, administration.grant, account_id, "admin")
    assert account.roles == ["admin"]


def test_removed_role_has_no_permission() -> None:
    assert permissions_of(["king"]) == frozenset()
    assert permissions_of(["king", "admin"]) == ROLES["admin"]
