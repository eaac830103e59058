"""Confirmed addresses, forgotten passwords, changes, and the end of an account."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from app.db.session import open_database
from app.features.accounts.passwords import Passwords
from app.settings import Settings
from conftest import Lines, is_problem
from sent_mails import send_due_mails, token_of
from sql import fetch

EMAIL, PASSWORD = "grace@navy.example", "a nanosecond is 30 cm"
OTHER, NEW_PASSWORD = "ada@engine.example", "a microsecond is 300 m"


async def register(client: AsyncClient, email: str = EMAIL) -> dict[str, str]:
    """Register an account, log in, and return the tokens."""
    account = {"email": email, "password": PASSWORD}
    assert (await client.post("/accounts", json=account)).status_code == 201
    return (await log_in(client, email)).json()  # type: ignore[no-any-return]


async def log_in(client: AsyncClient, email: str = EMAIL, password: str = PASSWORD) -> Response:
    form = {"username": email, "password": password}
    return await client.post("/accounts/login", data=form, headers={"User-Agent": "a test"})


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def refresh(client: AsyncClient, tokens: dict[str, str]) -> int:
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    return (await client.post("/accounts/login", data=form)).status_code


async def read(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    async with open_database(settings) as database:
        return [tuple(row.values()) for row in await fetch(database, text(statement))]


async def execute(settings: Settings, statement: str) -> None:
    async with open_database(settings) as database, database.session() as session:
        await session.execute(text(statement))


async def verified_at(client: AsyncClient, tokens: dict[str, str]) -> str | None:
    account = await client.get("/accounts/me", headers=bearer(tokens))
    found: str | None = account.json()["email_verified_at"]
    return found


@contextmanager
def recorded_statements() -> Iterator[list[str]]:
    """Record the statements of every connection."""
    statements: list[str] = []

    def record(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", record)
    yield statements
    event.remove(Engine, "before_cursor_execute", record)


# --- the address ----------------------------------------------------------------------------------


async def test_link_of_the_registration_confirms_the_address_once(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    tokens = await register(anonymous_client)
    assert await verified_at(anonymous_client, tokens) is None
    (mail,) = await send_due_mails(settings)
    assert mail["To"] == EMAIL
    sent = {"token": token_of(mail, "verify-email")}
    confirm = "/accounts/verification/confirm"
    assert (await anonymous_client.post(confirm, json=sent)).status_code == 204
    assert await verified_at(anonymous_client, tokens) is not None
    again = await anonymous_client.post(confirm, json=sent)
    assert is_problem(again, 422, "invalid-link")


async def test_confirmation_is_sent_again_until_the_address_is_confirmed(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    headers = bearer(await register(anonymous_client))
    for _ in range(2):
        response = await anonymous_client.post("/accounts/verification", headers=headers)
        assert response.status_code == 202
    mails = await send_due_mails(settings)
    assert [mail["To"] for mail in mails] == [EMAIL] * 3
    sent = {"token": token_of(mails[0], "verify-email")}
    await anonymous_client.post("/accounts/verification/confirm", json=sent)
    await anonymous_client.post("/accounts/verification", headers=headers)
    assert await send_due_mails(settings) == []


async def test_database_stores_only_the_digest_of_a_token(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await register(anonymous_client)
    mails = "SELECT mails::text FROM mails"
    ((before,),) = await read(settings, mails)
    (mail,) = await send_due_mails(settings)
    token = token_of(mail, "verify-email")
    assert token not in before
    ((digest,),) = await read(settings, "SELECT digest FROM account_tokens")
    assert digest == hashlib.sha256(token.encode()).digest()
    assert await read(settings, mails) == []


async def test_mail_locks_the_account_before_expired_links_as_a_change_of_address_does(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await register(anonymous_client)
    with recorded_statements() as statements:
        await send_due_mails(settings)
    changes = [s.split()[0] for s in statements if s.startswith(("INSERT", "DELETE"))]
    assert changes == ["INSERT", "DELETE", "DELETE"], "the link, expired links, the mail"


async def test_expired_links_are_found_with_an_index(
    settings: Settings, clean_tables: None
) -> None:
    del clean_tables
    explain = "EXPLAIN DELETE FROM account_tokens WHERE expires_at <= now()"
    async with open_database(settings) as database, database.session() as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join((await session.scalars(text(explain))).all())
    assert "ix_account_tokens_expires_at" in plan


async def test_expired_link_is_refused(anonymous_client: AsyncClient, settings: Settings) -> None:
    tokens = await register(anonymous_client)
    (mail,) = await send_due_mails(settings)
    await execute(settings, "UPDATE account_tokens SET expires_at = now()")
    sent = {"token": token_of(mail, "verify-email")}
    refused = await anonymous_client.post("/accounts/verification/confirm", json=sent)
    assert is_problem(refused, 422, "invalid-link")
    assert await verified_at(anonymous_client, tokens) is None


async def test_address_changes_when_the_new_one_is_confirmed_and_the_old_one_is_notified(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    tokens = await register(anonymous_client)
    await send_due_mails(settings)
    change = {"email": "hopper@navy.example", "current_password": PASSWORD}
    url, headers = "/accounts/me/email", bearer(tokens)
    wrong = await anonymous_client.post(
        url, json=change | {"current_password": "wrong"}, headers=headers
    )
    assert is_problem(wrong, 422, "wrong-password")
    assert (await anonymous_client.post(url, json=change, headers=headers)).status_code == 202
    (mail,) = await send_due_mails(settings)
    assert mail["To"] == "hopper@navy.example"
    assert (await log_in(anonymous_client)).status_code == 200, "the old address is still used"

    await anonymous_client.post("/accounts/password/forgotten", json={"email": EMAIL})
    (reset,) = await send_due_mails(settings)
    sent = {"token": token_of(mail, "change-email")}
    assert (await anonymous_client.post("/accounts/email/confirm", json=sent)).status_code == 204
    (notice,) = await send_due_mails(settings)
    assert (notice["To"], notice["Subject"]) == (EMAIL, "Your e-mail address was changed")
    assert (await log_in(anonymous_client)).status_code == 401
    assert (await log_in(anonymous_client, "hopper@navy.example")).status_code == 200
    assert await verified_at(anonymous_client, tokens) is not None
    old_link = {"token": token_of(reset, "reset-password"), "password": NEW_PASSWORD}
    refused = await anonymous_client.post("/accounts/password/reset", json=old_link)
    assert is_problem(refused, 422, "invalid-link"), "links to the old address end"


async def test_address_of_another_account_gets_no_link(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    tokens = await register(anonymous_client)
    await register(anonymous_client, OTHER)
    await send_due_mails(settings)
    change = {"email": OTHER, "current_password": PASSWORD}
    response = await anonymous_client.post(
        "/accounts/me/email", json=change, headers=bearer(tokens)
    )
    assert response.status_code == 202, "the same response as for a free address"
    assert await send_due_mails(settings) == []


async def test_address_that_was_registered_meanwhile_returns_409(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    tokens = await register(anonymous_client)
    await send_due_mails(settings)
    change = {"email": OTHER, "current_password": PASSWORD}
    await anonymous_client.post("/accounts/me/email", json=change, headers=bearer(tokens))
    (mail,) = await send_due_mails(settings)
    await register(anonymous_client, OTHER)
    sent = {"token": token_of(mail, "change-email")}
    refused = await anonymous_client.post("/accounts/email/confirm", json=sent)
    assert is_problem(refused, 409, "duplicate-account")
    assert (await log_in(anonymous_client)).status_code == 200


async def test_new_password_cancels_a_change_of_the_address_that_is_not_mailed_yet(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    tokens = await register(anonymous_client)
    reset = {"token": await forgotten(anonymous_client, settings), "password": NEW_PASSWORD}
    change = {"email": OTHER, "current_password": PASSWORD}
    asked = await anonymous_client.post("/accounts/me/email", json=change, headers=bearer(tokens))
    assert asked.status_code == 202
    done = await anonymous_client.post("/accounts/password/reset", json=reset)
    assert done.status_code == 204
    assert await send_due_mails(settings) == []


# --- the password ---------------------------------------------------------------------------------


async def forgotten(client: AsyncClient, settings: Settings) -> str:
    """Ask for a link for a new password, and return its token."""
    await send_due_mails(settings)
    await client.post("/accounts/password/forgotten", json={"email": EMAIL})
    (mail,) = await send_due_mails(settings)
    assert mail["To"] == EMAIL
    return token_of(mail, "reset-password")


async def test_forgotten_password_is_replaced_and_all_sessions_end(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    tokens = await register(anonymous_client)
    first = await forgotten(anonymous_client, settings)
    second = await forgotten(anonymous_client, settings)
    reset, url = {"token": first, "password": NEW_PASSWORD}, "/accounts/password/reset"
    short = await anonymous_client.post(url, json=reset | {"password": "short"})
    assert short.status_code == 422
    assert (await anonymous_client.post(url, json=reset)).status_code == 204
    assert await refresh(anonymous_client, tokens) == 401
    assert (await log_in(anonymous_client)).status_code == 401
    logged_in = await log_in(anonymous_client, password=NEW_PASSWORD)
    assert logged_in.status_code == 200
    assert await verified_at(anonymous_client, logged_in.json()) is not None
    for token in (first, second):
        refused = await anonymous_client.post(url, json=reset | {"token": token})
        assert is_problem(refused, 422, "invalid-link"), "all links of the account end"


async def test_link_to_an_earlier_address_resets_no_password(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await register(anonymous_client)
    reset = {"token": await forgotten(anonymous_client, settings), "password": NEW_PASSWORD}
    await execute(settings, "UPDATE accounts SET email = 'ada@engine.example'")
    refused = await anonymous_client.post("/accounts/password/reset", json=reset)
    assert is_problem(refused, 422, "invalid-link")
    assert (await log_in(anonymous_client, OTHER)).status_code == 200


async def test_link_that_is_used_concurrently_sets_one_password(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await register(anonymous_client)
    token = await forgotten(anonymous_client, settings)
    passwords = [f"{NEW_PASSWORD} {number}" for number in range(6)]
    responses = await asyncio.gather(
        *(
            anonymous_client.post(
                "/accounts/password/reset", json={"token": token, "password": password}
            )
            for password in passwords
        )
    )
    assert sorted(response.status_code for response in responses) == [204] + [422] * 5
    (winner,) = (p for p, r in zip(passwords, responses, strict=True) if r.status_code == 204)
    assert (await log_in(anonymous_client, password=winner)).status_code == 200


async def test_token_of_another_link_resets_no_password(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await register(anonymous_client)
    (mail,) = await send_due_mails(settings)
    reset = {"token": token_of(mail, "verify-email"), "password": NEW_PASSWORD}
    refused = await anonymous_client.post("/accounts/password/reset", json=reset)
    assert is_problem(refused, 422, "invalid-link")


async def test_forgotten_password_of_known_and_unknown_address_is_the_same_work(
    anonymous_client: AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(anonymous_client)
    await send_due_mails(settings)

    async def spy(*_: Any) -> None:
        pytest.fail("a request hashes no password")

    monkeypatch.setattr(Passwords, "hash", spy)
    monkeypatch.setattr(Passwords, "verify", spy)
    found = []
    for email in (EMAIL, "unknown@navy.example"):
        with recorded_statements() as statements:
            response = await anonymous_client.post(
                "/accounts/password/forgotten", json={"email": email}
            )
        headers = {k: v for k, v in response.headers.items() if k != "x-request-id"}
        headers.pop("ratelimit", None)  # option: rate_limit
        found.append((response.status_code, response.content, headers, statements))
    known, unknown = found
    assert known == unknown
    status, _, _, statements = known
    assert status == 202
    assert [s for s in statements if " accounts" in s] == [], "no account is read"
    assert [mail["To"] for mail in await send_due_mails(settings)] == [EMAIL]
    assert await read(settings, "SELECT id FROM mails") == []


async def test_changed_password_ends_all_sessions_and_begins_a_new_one(
    anonymous_client: AsyncClient,
) -> None:
    tokens = await register(anonymous_client)
    other_device = (await log_in(anonymous_client)).json()
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    url, headers = "/accounts/me/password", bearer(tokens)
    wrong = await anonymous_client.post(
        url, json=change | {"current_password": "wrong"}, headers=headers
    )
    assert is_problem(wrong, 422, "wrong-password")
    assert await refresh(anonymous_client, other_device) == 200
    changed = await anonymous_client.post(url, json=change, headers=headers)
    assert changed.status_code == 200
    assert changed.headers["Cache-Control"] == "no-store"
    assert await refresh(anonymous_client, tokens) == 401
    assert await refresh(anonymous_client, other_device) == 401
    assert await refresh(anonymous_client, changed.json()) == 200
    assert (await log_in(anonymous_client)).status_code == 401
    assert (await log_in(anonymous_client, password=NEW_PASSWORD)).status_code == 200


async def test_login_with_a_password_that_is_replaced_meanwhile_begins_no_session(
    anonymous_client: AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(anonymous_client)
    verify = Passwords.verify

    async def verify_and_replace(*arguments: Any) -> tuple[bool, str | None]:
        is_right, _ = await verify(*arguments)
        await execute(settings, "UPDATE accounts SET password_hash = 'new'")
        await execute(settings, "DELETE FROM sessions")
        return is_right, "a hash with newer parameters"

    monkeypatch.setattr(Passwords, "verify", verify_and_replace)
    assert is_problem(await log_in(anonymous_client), 401, "wrong-credentials")
    assert await read(settings, "SELECT password_hash FROM accounts") == [("new",)]
    assert await read(settings, "SELECT id FROM sessions") == []


async def test_login_waits_for_a_change_of_the_password(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await register(anonymous_client)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with open_database(settings) as database:
        async with database.session() as session:
            await session.execute(text("UPDATE accounts SET password_hash = 'new'"))
            task = asyncio.create_task(log_in(anonymous_client))
            while await read(settings, waiting) == [(0,)]:
                await asyncio.sleep(0.01)
                assert not task.done(), task.result()
            await session.execute(text("DELETE FROM sessions"))
        assert is_problem(await task, 401, "wrong-credentials")
    assert await read(settings, "SELECT id FROM sessions") == []


async def test_reset_locks_attempts_before_the_account_as_a_login_does(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await register(anonymous_client)
    reset = {"token": await forgotten(anonymous_client, settings), "password": NEW_PASSWORD}
    with recorded_statements() as statements:
        response = await anonymous_client.post("/accounts/password/reset", json=reset)
    assert response.status_code == 204
    locked = [s.split()[2 if s.startswith("DELETE") else 1] for s in statements]
    assert locked.index("attempts") < locked.index("accounts")


async def test_change_of_a_password_that_is_replaced_meanwhile_is_refused(
    anonymous_client: AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = await register(anonymous_client)

    async def replace_and_hash(*_: Any) -> str:
        await execute(settings, "UPDATE accounts SET password_hash = 'new'")
        return "late"

    monkeypatch.setattr(Passwords, "hash", replace_and_hash)
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    refused = await anonymous_client.post(
        "/accounts/me/password", json=change, headers=bearer(tokens)
    )
    assert is_problem(refused, 422, "wrong-password")
    assert await read(settings, "SELECT password_hash FROM accounts") == [("new",)]


# --- sessions -------------------------------------------------------------------------------------


async def test_sessions_are_listed_with_their_device_and_revoked(
    anonymous_client: AsyncClient,
) -> None:
    tokens = await register(anonymous_client)
    other = await register(anonymous_client, OTHER)
    used_last = (await log_in(anonymous_client)).json()
    listed = await anonymous_client.get("/accounts/me/sessions", headers=bearer(tokens))
    newest, oldest = listed.json()
    assert set(newest) == {"id", "user_agent", "last_used_at", "created_at", "expires_at"}
    assert newest["user_agent"] == "a test"
    assert newest["last_used_at"] > oldest["last_used_at"]

    url = f"/accounts/me/sessions/{newest['id']}"
    foreign = await anonymous_client.delete(url, headers=bearer(other))
    assert is_problem(foreign, 404, "session-not-found")
    assert (await anonymous_client.delete(url, headers=bearer(tokens))).status_code == 204
    assert await refresh(anonymous_client, used_last) == 401
    assert await refresh(anonymous_client, tokens) == 200
    again = await anonymous_client.delete(url, headers=bearer(tokens))
    assert is_problem(again, 404, "session-not-found")


# --- the end --------------------------------------------------------------------------------------


async def test_deleted_account_leaves_nothing_and_other_accounts_stay(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    tokens = await register(anonymous_client)
    other = await register(anonymous_client, OTHER)
    await send_due_mails(settings)
    url, headers = "/accounts/me/deletion", bearer(tokens)
    wrong = await anonymous_client.post(url, json={"current_password": "wrong"}, headers=headers)
    assert is_problem(wrong, 422, "wrong-password")
    sent = {"current_password": PASSWORD}
    assert (await anonymous_client.post(url, json=sent, headers=headers)).status_code == 204
    me = await anonymous_client.get("/accounts/me", headers=headers)
    assert is_problem(me, 401, "unknown-account")
    again = await anonymous_client.post(url, json=sent, headers=headers)
    assert is_problem(again, 401, "unknown-account")
    assert await read(settings, "SELECT email FROM accounts") == [(OTHER,)]
    for table in ("sessions", "account_tokens"):
        owners = await read(settings, f"SELECT count(DISTINCT account_id) FROM {table}")  # noqa: S608
        assert owners == [(1,)], table
    assert await refresh(anonymous_client, tokens) == 401
    assert await refresh(anonymous_client, other) == 200


async def test_export_has_the_account_and_its_sessions_and_no_secret(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    tokens = await register(anonymous_client)
    await register(anonymous_client, OTHER)
    response = await anonymous_client.get("/accounts/me/export", headers=bearer(tokens))
    assert response.headers["Cache-Control"] == "no-store"
    exported = response.json()
    assert exported["account"]["email"] == EMAIL
    assert [session["user_agent"] for session in exported["sessions"]] == ["a test"]
    hashes = await read(settings, "SELECT password_hash FROM accounts")
    secrets = [tokens["access_token"], tokens["refresh_token"], *(value for (value,) in hashes)]
    for secret in (OTHER, *secrets):
        assert secret not in response.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/accounts/verification"),
        ("POST", "/accounts/me/password"),
        ("POST", "/accounts/me/email"),
        ("GET", "/accounts/me/sessions"),
        ("DELETE", "/accounts/me/sessions/00000000-0000-0000-0000-000000000000"),
        ("GET", "/accounts/me/export"),
        ("POST", "/accounts/me/deletion"),
    ],
)
async def test_own_account_requires_an_access_token(
    anonymous_client: AsyncClient, method: str, path: str
) -> None:
    response = await anonymous_client.request(method, path)
    assert is_problem(response, 401, "token-required")


async def test_log_has_no_address_no_password_and_no_token(
    anonymous_client: AsyncClient, settings: Settings, lines: Lines
) -> None:
    tokens = await register(anonymous_client)
    token = await forgotten(anonymous_client, settings)
    reset = {"token": token, "password": NEW_PASSWORD}
    await anonymous_client.post("/accounts/password/reset", json=reset)
    await anonymous_client.post("/accounts/password/reset", json=reset)
    logged = lines()
    assert {line["route"] for line in logged if "route" in line} == {
        *("/accounts", "/accounts/login"),
        *("/accounts/password/forgotten", "/accounts/password/reset"),
    }
    for secret in (EMAIL, PASSWORD, NEW_PASSWORD, token, tokens["refresh_token"]):
        assert secret not in json.dumps(logged)
