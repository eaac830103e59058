"""Log-ins with a provider: accounts that they create, link and take over."""

import asyncio
import json
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import text

from app.db.session import open_database
from app.settings import Settings
from conftest import Lines, is_problem
from login_provider import GitHubServer, LoginProvider, challenge_of
from oidc_provider import DISCOVERY
from provider_logins import PAGE, Browser, browser_of, fragment_of, provider_entry, visit
from provider_logins import service_with_providers as serve
from sent_mails import send_due_mails, text_of, token_of
from sql import fetch

EMAIL, PASSWORD = "grace@navy.example", "a nanosecond is 30 cm"
NEW_PASSWORD = "a microsecond is 300 m"
VERIFIER = "a-verifier-of-the-frontend-with-43-characters"


def bearer(tokens: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def read(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    async with open_database(settings) as database:
        return [tuple(row.values()) for row in await fetch(database, text(statement))]


async def execute(settings: Settings, statement: str) -> None:
    async with open_database(settings) as database, database.session() as session:
        await session.execute(text(statement))


async def register(client: AsyncClient) -> dict[str, str]:
    """Register an account with a password, and log in."""
    account = {"email": EMAIL, "password": PASSWORD}
    assert (await client.post("/accounts", json=account)).status_code == 201
    return await log_in(client)


async def log_in(client: AsyncClient, password: str = PASSWORD) -> dict[str, str]:
    form = {"username": EMAIL, "password": password}
    response = await client.post("/accounts/login", data=form)
    assert response.status_code == 200, response.text
    return response.json()  # type: ignore[no-any-return]


async def confirm(client: AsyncClient, settings: Settings) -> None:
    """Confirm the address of the account with the mail that was sent."""
    (mail,) = await send_due_mails(settings)
    sent = {"token": token_of(mail, "verify-email")}
    response = await client.post("/accounts/verification/confirm", json=sent)
    assert response.status_code == 204


async def acts(settings: Settings) -> list[str]:
    return [act for (act,) in await read(settings, "SELECT act FROM administrative_acts")]


# --- the first log-in -----------------------------------------------------------------------------


async def test_first_login_creates_a_confirmed_account_without_a_password(
    browser: Browser, provider: LoginProvider, settings: Settings
) -> None:
    tokens = await browser.tokens()
    account = (await browser.client.get("/accounts/me", headers=bearer(tokens))).json()
    assert account["email"] == EMAIL
    assert account["email_verified_at"] is not None
    assert account["has_password"] is False
    links = await browser.client.get("/accounts/me/providers", headers=bearer(tokens))
    ((link),) = links.json()
    assert (link["provider"], link["email"]) == ("test", EMAIL)
    assert await read(settings, "SELECT issuer, subject FROM provider_links") == [
        (provider.issuer, "grace")
    ]
    assert await read(
        settings, "SELECT act, provider, actor_id = target_id FROM administrative_acts"
    ) == [("link", "test", True)]
    assert await send_due_mails(settings) == []


async def test_response_with_tokens_must_not_be_stored(browser: Browser) -> None:
    response = await browser.log_in()
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert set(response.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}


async def test_later_logins_find_the_account_by_subject_and_not_by_address(
    browser: Browser, provider: LoginProvider
) -> None:
    first = await browser.tokens()
    provider.user |= {"email": "hopper@navy.example", "email_verified": False}
    second = await browser.tokens()
    for tokens in (first, second):
        account = await browser.client.get("/accounts/me", headers=bearer(tokens))
        assert account.json()["email"] == EMAIL


async def test_account_with_a_confirmed_address_is_linked_and_keeps_its_password(
    browser: Browser, provider: LoginProvider, settings: Settings
) -> None:
    own = await register(browser.client)
    await confirm(browser.client, settings)
    provider.user["email"] = "Grace@NAVY.example"
    linked = await browser.tokens()
    accounts = [
        (await browser.client.get("/accounts/me", headers=bearer(tokens))).json()
        for tokens in (own, linked, await log_in(browser.client))
    ]
    assert len({account["id"] for account in accounts}) == 1
    assert accounts[0]["has_password"] is True
    form = {"grant_type": "refresh_token", "refresh_token": own["refresh_token"]}
    assert (await browser.client.post("/accounts/login", data=form)).status_code == 200
    (mail,) = await send_due_mails(settings)
    assert (mail["To"], mail["Subject"]) == (EMAIL, "A log-in was added to your account")
    assert "test now logs you in" in text_of(mail)
    assert "password" not in text_of(mail)
    assert await acts(settings) == ["link"]
    await browser.tokens()
    assert await send_due_mails(settings) == [], "only the first log-in is a change"


async def test_preregistered_account_is_taken_over_and_nothing_of_the_attacker_survives(
    browser: Browser, login_service: AsyncClient, settings: Settings
) -> None:
    """An attacker registers the address of a user before the user does."""
    async with browser_of(login_service) as attacker:
        stolen = await register(attacker.client)
        (verification,) = await send_due_mails(settings)
        await execute(settings, "UPDATE accounts SET roles = '{admin}'")
        stolen = await log_in(attacker.client)
        headers = bearer(stolen)
        key = {"name": "a back door", "scopes": ["accounts:read"]}
        created = await attacker.client.post("/accounts/me/api-keys", json=key, headers=headers)
        change = {"email": "attacker@evil.example", "current_password": PASSWORD}
        await attacker.client.post("/accounts/me/email", json=change, headers=headers)
        (mail,) = await send_due_mails(settings)
        await attacker.client.post("/accounts/me/email", json=change, headers=headers)

        tokens = await browser.tokens()

        account = (await browser.client.get("/accounts/me", headers=bearer(tokens))).json()
        assert account["has_password"] is False
        assert account["email_verified_at"] is not None
        post = attacker.client.post
        form = {"username": EMAIL, "password": PASSWORD}
        assert is_problem(await post("/accounts/login", data=form), 401, "wrong-credentials")
        form = {"grant_type": "refresh_token", "refresh_token": stolen["refresh_token"]}
        assert is_problem(await post("/accounts/login", data=form), 401, "session-ended")
        by_key = {"Authorization": f"Bearer {created.json()['key']}"}
        assert is_problem(
            await attacker.client.get("/accounts", headers=by_key), 401, "invalid-token"
        )
        link = {"token": token_of(mail, "change-email")}
        assert is_problem(await post("/accounts/email/confirm", json=link), 422, "invalid-link")
        link = {"token": token_of(verification, "verify-email")}
        refused = await post("/accounts/verification/confirm", json=link)
        assert is_problem(refused, 422, "invalid-link")
        # The access token is valid until it expires, and neither changes nor deletes the account.
        for path, body in {
            "/accounts/me/password": {"new_password": NEW_PASSWORD},
            "/accounts/me/email": {"email": "attacker@evil.example"},
            "/accounts/me/deletion": {},
        }.items():
            refused = await post(path, json=body, headers=headers)
            assert is_problem(refused, 401, "recent-login-required"), path
    sessions = await browser.client.get("/accounts/me/sessions", headers=bearer(tokens))
    assert len(sessions.json()) == 1
    (notice,) = await send_due_mails(settings)  # and no link to the address of the attacker
    assert notice["To"] == EMAIL
    assert "its password, sessions and API keys have ended" in text_of(notice)
    assert sorted(await acts(settings)) == ["link", "take-over"]


@pytest.mark.parametrize(
    "changes",
    [
        {"email_verified": False},
        {"email_verified": "false"},
        {"email_verified": None},
        {"email": None},
    ],
)
@pytest.mark.parametrize("is_registered", [True, False])
async def test_address_that_the_provider_has_not_verified_is_refused(
    browser: Browser,
    provider: LoginProvider,
    settings: Settings,
    changes: dict[str, Any],
    *,
    is_registered: bool,
) -> None:
    if is_registered:
        await register(browser.client)
        await confirm(browser.client, settings)
    provider.user |= changes
    provider.user_info = provider.user if None in changes.values() else None
    response = await browser.log_in()
    assert is_problem(response, 401, "email-not-verified")
    assert await read(settings, "SELECT * FROM provider_links") == []
    assert len(await read(settings, "SELECT * FROM accounts")) == is_registered


@pytest.mark.parametrize(
    "email", ["gr\u0430ce@navy.example", "grace", "=?utf-8?q?a?=@navy.example"]
)
async def test_address_that_no_account_may_have_is_refused(
    browser: Browser, provider: LoginProvider, email: str
) -> None:
    provider.user["email"] = email
    assert is_problem(await browser.log_in(), 401, "email-not-verified")


async def test_disabled_account_is_refused_before_and_after_it_is_linked(
    browser: Browser, settings: Settings
) -> None:
    await register(browser.client)
    await execute(settings, "UPDATE accounts SET disabled_at = now()")
    assert is_problem(await browser.log_in(), 401, "account-disabled")
    assert await read(settings, "SELECT * FROM provider_links") == []
    await execute(settings, "UPDATE accounts SET disabled_at = NULL")
    await browser.tokens()
    await execute(settings, "UPDATE accounts SET disabled_at = now()")
    assert is_problem(await browser.log_in(), 401, "account-disabled")


async def test_another_user_of_the_provider_with_the_same_address_is_refused(
    browser: Browser, provider: LoginProvider
) -> None:
    await browser.tokens()
    provider.user["sub"] = "another user, who has the address now"
    assert is_problem(await browser.log_in(), 409, "other-user-linked")


async def test_address_of_the_user_info_endpoint_is_used_if_the_id_token_has_none(
    browser: Browser, provider: LoginProvider
) -> None:
    provider.user_info = {"sub": "grace", "email": EMAIL, "email_verified": True}
    tokens = await browser.tokens()
    account = await browser.client.get("/accounts/me", headers=bearer(tokens))
    assert account.json()["email"] == EMAIL
    assert provider.requests["/userinfo"] == 1


async def test_client_secret_is_sent_in_the_form_if_the_provider_wants_it(
    settings: Settings, clean_tables: None
) -> None:
    del clean_tables
    provider = LoginProvider()
    methods = ["private_key_jwt", "client_secret_post"]
    provider.documents[DISCOVERY]["token_endpoint_auth_methods_supported"] = methods
    entries = [provider_entry(provider)]
    async with serve(settings, login_providers=entries) as client, browser_of(client) as browser:
        await browser.tokens()
    provider.stop()


# --- GitHub ---------------------------------------------------------------------------------------


async def test_login_with_github_uses_the_primary_address(
    browser: Browser, github: GitHubServer, settings: Settings
) -> None:
    tokens = await browser.tokens("github")
    account = await browser.client.get("/accounts/me", headers=bearer(tokens))
    assert account.json()["email"] == EMAIL
    assert await read(settings, "SELECT issuer, subject FROM provider_links") == [
        (github.response_issuer, "1906")
    ]
    await browser.tokens("github")


@pytest.mark.parametrize(
    "emails",
    [
        [{"email": EMAIL, "primary": True, "verified": False}],
        [{"email": EMAIL, "primary": False, "verified": True}],
        [{"email": None, "primary": True, "verified": True}],
        [],
        {},
    ],
)
async def test_github_user_without_a_verified_primary_address_is_refused(
    browser: Browser, github: GitHubServer, emails: Any
) -> None:
    github.emails = emails
    assert is_problem(await browser.log_in("github"), 401, "email-not-verified")


async def test_account_may_have_links_to_several_providers(
    browser: Browser,
) -> None:
    first, second = await browser.tokens(), await browser.tokens("github")
    ids = {
        (await browser.client.get("/accounts/me", headers=bearer(tokens))).json()["id"]
        for tokens in (first, second)
    }
    assert len(ids) == 1
    links = await browser.client.get("/accounts/me/providers", headers=bearer(first))
    assert [link["provider"] for link in links.json()] == ["test", "github"]


# --- the frontend ---------------------------------------------------------------------------------


async def test_frontend_exchanges_the_code_of_the_fragment_for_tokens(
    page_browser: Browser,
) -> None:
    response = await page_browser.log_in(code_challenge=challenge_of(VERIFIER))
    assert response.headers["Cache-Control"] == "no-store"
    (name, code) = next(iter(fragment_of(response).items()))
    assert name == "code"
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    tokens = await page_browser.client.post("/accounts/login", data=form)
    assert tokens.status_code == 200
    account = await page_browser.client.get("/accounts/me", headers=bearer(tokens.json()))
    assert account.json()["email"] == EMAIL
    again = await page_browser.client.post("/accounts/login", data=form)
    assert is_problem(again, 401, "invalid-code")
    assert again.json()["error"] == "invalid_grant"


async def test_frontend_gets_the_name_of_an_error(
    page_browser: Browser, provider: LoginProvider
) -> None:
    provider.user["email_verified"] = False
    response = await page_browser.log_in(code_challenge=challenge_of(VERIFIER))
    assert fragment_of(response) == {"error": "email-not-verified"}
    refused = await page_browser.begin(code_challenge=challenge_of(VERIFIER))
    callback = (await visit(refused)).replace("code=", "error=access_denied&ignored=")
    assert fragment_of(await page_browser.client.get(callback)) == {"error": "login-refused"}


async def test_page_of_the_frontend_keeps_its_query(
    settings: Settings, provider: LoginProvider
) -> None:
    values = {"login_providers": [provider_entry(provider)]}
    page = f"{PAGE}?view=login"
    async with (
        serve(settings, **values, login_redirect_url=page) as client,
        browser_of(client) as browser,
    ):
        response = await browser.client.get("/accounts/providers/test/callback")
        assert response.headers["Location"] == f"{page}#error=login-expired"


# --- accounts without a password ------------------------------------------------------------------


async def test_account_without_a_password_is_deleted_after_a_recent_login_only(
    browser: Browser, settings: Settings
) -> None:
    tokens = await browser.tokens()
    await execute(settings, "UPDATE sessions SET created_at = now() - interval '10 minutes'")
    refused = await browser.client.post("/accounts/me/deletion", json={}, headers=bearer(tokens))
    assert is_problem(refused, 401, "recent-login-required")
    challenge = 'Bearer error="insufficient_user_authentication", max_age="600"'
    assert refused.headers["WWW-Authenticate"] == challenge
    tokens = await browser.tokens()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    tokens = (await browser.client.post("/accounts/login", data=form)).json()
    deleted = await browser.client.post("/accounts/me/deletion", json={}, headers=bearer(tokens))
    assert deleted.status_code == 204
    for table in ("accounts", "sessions", "provider_links"):
        assert await read(settings, f"SELECT * FROM {table}") == [], table  # noqa: S608


async def test_recent_login_sets_the_first_password_and_changes_the_address(
    browser: Browser, settings: Settings
) -> None:
    tokens = await browser.tokens()
    change = {"email": "hopper@navy.example"}
    headers = bearer(tokens)
    sent = await browser.client.post("/accounts/me/email", json=change, headers=headers)
    assert sent.status_code == 202
    (mail,) = await send_due_mails(settings)
    assert mail["To"] == "hopper@navy.example"
    new = {"new_password": PASSWORD}
    response = await browser.client.post("/accounts/me/password", json=new, headers=headers)
    assert response.status_code == 200
    await log_in(browser.client)
    link = {"token": token_of(mail, "change-email")}
    ended = await browser.client.post("/accounts/email/confirm", json=link)
    assert is_problem(ended, 422, "invalid-link"), "a new password ends the links"
    headers = bearer(response.json())
    for path, body in {"password": {"new_password": NEW_PASSWORD}, "deletion": {}}.items():
        missing = await browser.client.post(f"/accounts/me/{path}", json=body, headers=headers)
        assert is_problem(missing, 422, "wrong-password"), path


async def test_password_login_to_an_account_without_a_password_is_refused(browser: Browser) -> None:
    await browser.tokens()
    form = {"username": EMAIL, "password": PASSWORD}
    response = await browser.client.post("/accounts/login", data=form)
    assert is_problem(response, 401, "wrong-credentials")
    assert response.json()["detail"] == "The e-mail address or the password is wrong."


async def test_link_for_a_forgotten_password_sets_the_first_one_and_ends_sessions_and_codes(
    page_browser: Browser, settings: Settings
) -> None:
    challenge = challenge_of(VERIFIER)
    codes = [fragment_of(await page_browser.log_in(code_challenge=challenge)) for _ in range(2)]
    form = {"grant_type": "authorization_code", "code_verifier": VERIFIER}
    post = page_browser.client.post
    tokens = (await post("/accounts/login", data=form | codes[0])).json()
    await post("/accounts/password/forgotten", json={"email": EMAIL})
    (mail,) = await send_due_mails(settings)
    reset = {"token": token_of(mail, "reset-password"), "password": NEW_PASSWORD}
    assert (await post("/accounts/password/reset", json=reset)).status_code == 204
    ended = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await post("/accounts/login", data=ended)).status_code == 401
    assert is_problem(await post("/accounts/login", data=form | codes[1]), 401, "invalid-code")
    await log_in(page_browser.client, NEW_PASSWORD)
    again = await page_browser.log_in(code_challenge=challenge)
    assert "code" in fragment_of(again), "the link to the provider continues"


async def test_forgotten_password_ends_links_of_users_with_another_address(
    browser: Browser, provider: LoginProvider, settings: Settings
) -> None:
    """An attacker lets a user confirm the address of the attacker's account."""
    provider.user = {"sub": "mallory", "email": "mallory@evil.example", "email_verified": True}
    headers = bearer(await browser.tokens())
    post = browser.client.post
    await post("/accounts/me/email", json={"email": EMAIL}, headers=headers)
    (mail,) = await send_due_mails(settings)
    link = {"token": token_of(mail, "change-email")}
    assert (await post("/accounts/email/confirm", json=link)).status_code == 204
    await send_due_mails(settings)
    await post("/accounts/password/forgotten", json={"email": EMAIL})
    (mail,) = await send_due_mails(settings)
    reset = {"token": token_of(mail, "reset-password"), "password": NEW_PASSWORD}
    assert (await post("/accounts/password/reset", json=reset)).status_code == 204
    own = await browser.tokens()
    account = await browser.client.get("/accounts/me", headers=bearer(own))
    assert account.json()["email"] == "mallory@evil.example", "a new account"


async def test_first_logins_at_the_same_time_create_one_account(
    browser: Browser, settings: Settings
) -> None:
    callbacks = [await visit(await browser.begin()) for _ in range(5)]
    responses = await asyncio.gather(*map(browser.client.get, callbacks))
    assert {response.status_code for response in responses} == {200}
    assert len(await read(settings, "SELECT * FROM accounts")) == 1
    assert len(await read(settings, "SELECT * FROM provider_links")) == 1
    assert await acts(settings) == ["link"]
    assert await send_due_mails(settings) == []


async def test_callbacks_of_one_login_at_the_same_time_are_accepted_once(browser: Browser) -> None:
    callback = await visit(await browser.begin())
    responses = await asyncio.gather(*(browser.client.get(callback) for _ in range(5)))
    assert sorted(response.status_code for response in responses) == [200, *[422] * 4]


async def test_export_has_the_links(browser: Browser) -> None:
    tokens = await browser.tokens()
    exported = (await browser.client.get("/accounts/me/export", headers=bearer(tokens))).json()
    ((link),) = exported["providers"]
    assert (link["provider"], link["email"]) == ("test", EMAIL)


# --- links ----------------------------------------------------------------------------------------


async def link_ids(browser: Browser, tokens: dict[str, str]) -> list[str]:
    links = await browser.client.get("/accounts/me/providers", headers=bearer(tokens))
    assert links.headers["Cache-Control"] == "no-store"
    return [link["id"] for link in links.json()]


async def test_link_is_removed_unless_it_is_the_only_way_to_log_in(
    browser: Browser, settings: Settings
) -> None:
    tokens = await browser.tokens()
    await browser.tokens("github")
    first, second = await link_ids(browser, tokens)
    delete = browser.client.delete
    removed = await delete(f"/accounts/me/providers/{first}", headers=bearer(tokens))
    assert removed.status_code == 204
    again = await delete(f"/accounts/me/providers/{first}", headers=bearer(tokens))
    assert is_problem(again, 404, "provider-link-not-found")
    last = f"/accounts/me/providers/{second}"
    assert is_problem(await delete(last, headers=bearer(tokens)), 409, "only-way-to-log-in")
    new = {"new_password": PASSWORD}
    tokens = (
        await browser.client.post("/accounts/me/password", json=new, headers=bearer(tokens))
    ).json()
    assert (await delete(last, headers=bearer(tokens))).status_code == 204
    assert (await acts(settings))[2:] == ["unlink", "unlink"]


async def test_link_to_a_provider_that_the_settings_lack_is_no_way_to_log_in(
    browser: Browser, settings: Settings
) -> None:
    tokens = await browser.tokens()
    await browser.tokens("github")
    await execute(settings, "UPDATE provider_links SET provider = 'gone' WHERE provider = 'github'")
    first, gone = await link_ids(browser, tokens)
    refused = await browser.client.delete(f"/accounts/me/providers/{first}", headers=bearer(tokens))
    assert is_problem(refused, 409, "only-way-to-log-in")
    removed = await browser.client.delete(f"/accounts/me/providers/{gone}", headers=bearer(tokens))
    assert removed.status_code == 204


async def test_link_of_another_account_is_not_found(
    browser: Browser, provider: LoginProvider
) -> None:
    (link,) = await link_ids(browser, await browser.tokens())
    provider.user = {"sub": "ada", "email": "ada@engine.example", "email_verified": True}
    tokens = await browser.tokens()
    refused = await browser.client.delete(f"/accounts/me/providers/{link}", headers=bearer(tokens))
    assert is_problem(refused, 404, "provider-link-not-found")


# --- the settings ---------------------------------------------------------------------------------


async def test_providers_are_listed(browser: Browser) -> None:
    response = await browser.client.get("/accounts/providers")
    assert response.json() == [{"name": "github"}, {"name": "test"}, {"name": "other"}]


async def test_service_without_providers_has_none(anonymous_client: AsyncClient) -> None:
    assert (await anonymous_client.get("/accounts/providers")).json() == []
    for path in (
        "/accounts/providers/google/login",
        "/accounts/providers/google/callback?state=a&code=b",
    ):
        assert is_problem(await anonymous_client.get(path), 404, "provider-not-found"), path


async def test_log_has_no_code_no_state_no_token_and_no_address(
    browser: Browser, lines: Lines
) -> None:
    callbacks = [await visit(await browser.begin(name)) for name in ("test", "github")]
    tokens = [(await browser.client.get(callback)).json() for callback in callbacks]
    cookie = browser.client.cookies["login"]
    logged = json.dumps(lines())
    assert "provider linked" in logged
    queries = [callback.partition("?")[2] for callback in callbacks]
    secrets = [value for query in queries for value in query.split("&") if "iss=" not in value]
    secrets += [cookie, EMAIL, *(value["access_token"] for value in tokens)]
    for secret in secrets:
        assert secret.partition("=")[2] not in logged if "=" in secret else secret not in logged
