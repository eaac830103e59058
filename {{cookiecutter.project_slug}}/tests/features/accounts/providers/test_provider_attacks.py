"""Attacks on log-ins with a provider. Each is refused, and creates nothing."""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from httpx import AsyncClient
from sqlalchemy import text

from app.db.session import open_database
from app.features.accounts.attempts import CLIENT
from app.settings import Settings
from conftest import is_problem
from login_provider import CLIENT_ID, LoginProvider, challenge_of
from oidc_provider import DISCOVERY, SigningKey
from provider_logins import (
    PAGE,
    Browser,
    browser_of,
    changed,
    fragment_of,
    provider_entry,
    service_with_providers,
    visit,
)
from sql import fetch

VERIFIER = "a-verifier-of-the-frontend-with-43-characters"
ATTACKER = SigningKey("key-1")  # with the id of the provider's key
TABLES = ("accounts", "sessions", "provider_links")


async def count_rows(settings: Settings, table: str) -> int:
    async with open_database(settings) as database:
        return len(await fetch(database, text(f"SELECT * FROM {table}")))  # noqa: S608


@pytest.fixture
async def victim(login_service: AsyncClient) -> AsyncIterator[Browser]:
    """Yield another browser."""
    async with browser_of(login_service) as browser:
        yield browser


# --- the state ------------------------------------------------------------------------------------

Change = Callable[[str], str]
CALLBACKS: dict[str, Change] = {
    "forged state": lambda url: changed(url, state="A" * 43),
    "no state": lambda url: changed(url, state=None),
    "empty state": lambda url: changed(url, state=""),
    "state with NUL": lambda url: changed(url, state="\x00"),
    "state of a log-in with another provider": lambda url: url.replace("/test/", "/other/"),
}


@pytest.mark.parametrize("change", CALLBACKS.values(), ids=CALLBACKS)
async def test_callback_without_the_state_of_a_login_is_refused(
    browser: Browser, settings: Settings, change: Change
) -> None:
    callback = await visit(await browser.begin())
    assert is_problem(await browser.client.get(change(callback)), 422, "login-expired")
    assert [await count_rows(settings, table) for table in TABLES] == [0, 0, 0]
    assert (await browser.client.get(callback)).status_code == 200, "the log-in is not used up"


async def test_callback_in_another_browser_is_refused(browser: Browser, victim: Browser) -> None:
    """An attacker sends the callback of its own log-in to a user (login CSRF)."""
    callback = await visit(await browser.begin())
    assert is_problem(await victim.client.get(callback), 422, "login-expired")
    await victim.begin()  # with a cookie of its own
    assert is_problem(await victim.client.get(callback), 422, "login-expired")
    assert (await browser.client.get(callback)).status_code == 200


async def test_cookie_of_another_form_is_replaced(browser: Browser) -> None:
    browser.client.cookies.set("login", "x", domain="testserver.local", path="/")
    callback = await visit(await browser.begin())
    assert len(browser.client.cookies["login"]) == 43
    assert (await browser.client.get(callback)).status_code == 200


async def test_callback_is_accepted_once(browser: Browser, provider: LoginProvider) -> None:
    callback = await visit(await browser.begin())
    assert (await browser.client.get(callback)).status_code == 200
    assert is_problem(await browser.client.get(callback), 422, "login-expired")
    assert provider.requests["/token"] == 1


async def test_expired_login_is_refused_and_deleted_by_the_next_one(
    browser: Browser, settings: Settings
) -> None:
    callback = await visit(await browser.begin())
    await browser.begin()
    expire = text("UPDATE provider_logins SET expires_at = now()")
    async with open_database(settings) as database, database.session() as session:
        await session.execute(expire)
    assert is_problem(await browser.client.get(callback), 422, "login-expired")
    await browser.begin()
    assert await count_rows(settings, "provider_logins") == 1


async def test_logins_in_two_tabs_of_a_browser_both_succeed(browser: Browser) -> None:
    callbacks = [await visit(await browser.begin()) for _ in range(2)]
    assert [(await browser.client.get(url)).status_code for url in callbacks] == [200, 200]


async def test_database_stores_no_state_no_cookie_and_no_verifier(
    browser: Browser, settings: Settings
) -> None:
    url = await browser.begin()
    async with open_database(settings) as database:
        (row,) = await fetch(
            database, text("SELECT provider_logins::text AS row FROM provider_logins")
        )
    query = parse_qs(urlsplit(url).query)
    for secret in (query["state"][0], query["nonce"][0], browser.client.cookies["login"]):
        assert secret not in row["row"]
        assert hashlib.sha256(secret.encode()).hexdigest() not in row["row"]


# --- the code of the provider ---------------------------------------------------------------------


async def test_code_of_another_login_is_refused(browser: Browser, victim: Browser) -> None:
    """An attacker injects a stolen code into its own log-in: PKCE and nonce differ."""
    stolen = parse_qs(urlsplit(await visit(await victim.begin())).query)["code"][0]
    callback = changed(await visit(await browser.begin()), code=stolen)
    assert is_problem(await browser.client.get(callback), 401, "login-refused")


@pytest.mark.parametrize("name", ["test", "github"])
async def test_unknown_code_is_refused_and_uses_the_login_up(browser: Browser, name: str) -> None:
    callback = await visit(await browser.begin(name))
    refused = await browser.client.get(changed(callback, code="unknown"))
    assert is_problem(refused, 401, "login-refused")
    assert is_problem(await browser.client.get(callback), 422, "login-expired")


@pytest.mark.parametrize("name", ["test", "github"])
async def test_code_is_exchanged_once(browser: Browser, name: str) -> None:
    used = parse_qs(urlsplit(callback := await visit(await browser.begin(name))).query)["code"][0]
    assert (await browser.client.get(callback)).status_code == 200
    callback = changed(await visit(await browser.begin(name)), code=used)
    assert is_problem(await browser.client.get(callback), 401, "login-refused")


@pytest.mark.parametrize("changes", [{"code": None, "error": "access_denied"}, {"code": ""}])
async def test_callback_without_a_code_is_refused(
    browser: Browser, changes: dict[str, str | None]
) -> None:
    callback = changed(await visit(await browser.begin()), **changes)
    assert is_problem(await browser.client.get(callback), 401, "login-refused")


async def test_authorization_request_has_pkce_state_and_nonce(browser: Browser) -> None:
    requests = [parse_qs(urlsplit(await browser.begin()).query) for _ in range(2)]
    for request in requests:
        assert request["code_challenge_method"] == ["S256"]
        assert request["response_type"] == ["code"]
        assert request["redirect_uri"] == ["http://testserver/accounts/providers/test/callback"]
        assert request["scope"] == ["openid email"]
    for name in ("state", "nonce", "code_challenge"):
        first, second = (request[name][0] for request in requests)
        assert len(first) == 43
        assert first != second


# --- the issuer of the response (RFC 9207) --------------------------------------------------------


@pytest.mark.parametrize("name", ["test", "github"])
async def test_response_of_another_issuer_is_refused(
    browser: Browser, provider: LoginProvider, name: str
) -> None:
    callback = changed(await visit(await browser.begin(name)), iss="https://evil.example.com")
    assert is_problem(await browser.client.get(callback), 401, "login-refused")
    assert provider.requests["/token"] == 0, "no code is sent to the wrong provider"


async def test_response_without_an_issuer_is_refused_if_the_provider_names_itself(
    browser: Browser,
) -> None:
    callback = changed(await visit(await browser.begin()), iss=None)
    assert is_problem(await browser.client.get(callback), 401, "login-refused")
    callback = changed(await visit(await browser.begin("github")), iss=None)
    assert (await browser.client.get(callback)).status_code == 200, "GitHub Enterprise Server"


# --- the ID token ---------------------------------------------------------------------------------

ATTACKS: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "of another log-in"},
    "no nonce": {"nonce": None},
    "another issuer": {"iss": "https://evil.example.com"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "another client"},
    "no audience": {"aud": None},
    "two audiences without azp": {"aud": [CLIENT_ID, "another client"]},
    "another azp": {"azp": "another client"},
    "two audiences, another azp": {"aud": [CLIENT_ID, "another client"], "azp": "another client"},
    "another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    "expired": {"exp": timedelta(minutes=-1)},
    "no expiry": {"exp": None},
    "no time": {"iat": None},
    "of the future": {"nbf": timedelta(minutes=5)},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "long subject": {"sub": "x" * 256},
    "forged": {"key": ATTACKER.private},
    "forged, with its own key": {"key": ATTACKER.private, "headers": {"jwk": ATTACKER.public}},
    "forged, with a URL of keys": {"key": ATTACKER.private, "headers": {"jku": "http://a.example"}},
    "unknown key": {"headers": {"kid": "unknown"}},
    "no key id": {"headers": {"kid": None}},
    "no algorithm": {"key": None, "algorithm": "none"},
    "symmetric algorithm": {"key": "k" * 64, "algorithm": "HS512"},
    "access token": {"headers": {"typ": "at+jwt"}},
    "log-out token": {"headers": {"typ": "logout+jwt"}},
}


@pytest.mark.parametrize("changes", ATTACKS.values(), ids=ATTACKS)
async def test_invalid_id_token_is_refused(
    browser: Browser, provider: LoginProvider, settings: Settings, changes: dict[str, Any]
) -> None:
    provider.claim_changes.update(changes)
    assert is_problem(await browser.log_in(), 401, "login-refused")
    assert [await count_rows(settings, table) for table in TABLES] == [0, 0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [CLIENT_ID]},
        {"aud": [CLIENT_ID, "another client"], "azp": CLIENT_ID},
        {"at_hash": None},
        {"headers": {"typ": None}},
        {"exp": timedelta(seconds=-15), "iat": timedelta(seconds=15)},
    ],
)
async def test_valid_id_token_of_another_form_is_accepted(
    browser: Browser, provider: LoginProvider, changes: dict[str, Any]
) -> None:
    provider.claim_changes.update(changes)
    assert (await browser.log_in()).status_code == 200


@pytest.mark.parametrize("token", [None, "", 1, "a.b", "a.b.c", ["x"]])
async def test_missing_or_malformed_id_token_is_refused(
    browser: Browser, provider: LoginProvider, token: Any
) -> None:
    provider.token_changes["id_token"] = token
    assert is_problem(await browser.log_in(), 401, "login-refused")


async def test_public_key_as_the_secret_of_hs256_is_refused(
    browser: Browser, provider: LoginProvider
) -> None:
    pem = provider.key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    issue = provider.add_to_token

    def forge(granted: dict[str, str], access_token: str) -> dict[str, Any]:
        _, claims, _ = issue(granted, access_token)["id_token"].split(".")
        header = encode(b'{"alg": "HS256", "typ": "JWT", "kid": "key-1"}')
        signature = hmac.new(pem, f"{header}.{claims}".encode(), hashlib.sha256).digest()
        return {"id_token": f"{header}.{claims}.{encode(signature)}"}

    provider.add_to_token = forge  # type: ignore[method-assign]  # of this test alone
    try:
        assert is_problem(await browser.log_in(), 401, "login-refused")
    finally:
        del provider.add_to_token


def encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@pytest.mark.parametrize("found", [{"sub": "another user"}, {}, ["grace"]])
async def test_user_info_of_another_user_is_refused(
    browser: Browser, provider: LoginProvider, found: Any
) -> None:
    provider.user_info = found or {"email": "no subject"}
    assert is_problem(await browser.log_in(), 401, "login-refused")


# --- the code of the frontend ---------------------------------------------------------------------

Exchange = Callable[[dict[str, str]], dict[str, str]]
EXCHANGES: dict[str, Exchange] = {
    "another verifier": lambda form: form | {"code_verifier": VERIFIER[::-1]},
    "the challenge as verifier": lambda form: form | {"code_verifier": challenge_of(VERIFIER)},
    "short verifier": lambda form: form | {"code_verifier": "x"},
    "unknown code": lambda form: form | {"code": "unknown"},
}


@pytest.mark.parametrize("change", EXCHANGES.values(), ids=EXCHANGES)
async def test_code_of_the_frontend_with_another_verifier_is_refused_and_used_up(
    page_browser: Browser, settings: Settings, change: Exchange
) -> None:
    form = await exchange_form(page_browser)
    post = page_browser.client.post
    refused = await post("/accounts/login", data=change(form))
    assert is_problem(refused, 401, "invalid-code")
    assert refused.json()["error"] == "invalid_grant"
    expected = 200 if change(form)["code"] == "unknown" else 401
    assert (await post("/accounts/login", data=form)).status_code == expected
    assert await count_rows(settings, "sessions") == (expected == 200)


@pytest.mark.parametrize("missing", ["code", "code_verifier"])
async def test_exchange_without_a_parameter_is_refused(page_browser: Browser, missing: str) -> None:
    form = await exchange_form(page_browser)
    del form[missing]
    refused = await page_browser.client.post("/accounts/login", data=form)
    assert is_problem(refused, 422, "invalid-token-request")


async def test_expired_code_of_the_frontend_is_refused(
    page_browser: Browser, settings: Settings
) -> None:
    form = await exchange_form(page_browser)
    async with open_database(settings) as database, database.session() as session:
        await session.execute(text("UPDATE provider_logins SET expires_at = now()"))
    refused = await page_browser.client.post("/accounts/login", data=form)
    assert is_problem(refused, 401, "invalid-code")


async def test_state_is_no_code_of_the_frontend(page_browser: Browser) -> None:
    url = await page_browser.begin(code_challenge=challenge_of(VERIFIER))
    for name in ("state", "nonce"):
        code = parse_qs(urlsplit(url).query)[name][0]
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
        refused = await page_browser.client.post("/accounts/login", data=form)
        assert is_problem(refused, 401, "invalid-code")


@pytest.mark.parametrize(
    "disable", ["UPDATE accounts SET disabled_at = now()", "DELETE FROM accounts"]
)
async def test_code_of_an_account_that_was_disabled_or_deleted_is_refused(
    page_browser: Browser, settings: Settings, disable: str
) -> None:
    form = await exchange_form(page_browser)
    async with open_database(settings) as database, database.session() as session:
        await session.execute(text(disable))
    refused = await page_browser.client.post("/accounts/login", data=form)
    assert refused.status_code == 401
    assert refused.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({}, "code-challenge-required"),
        ({"code_challenge": "short"}, "invalid-input"),
        ({"code_challenge": "A" * 43, "code_challenge_method": "plain"}, "invalid-input"),
    ],
)
async def test_login_of_the_frontend_without_pkce_is_refused(
    page_browser: Browser, parameters: dict[str, str], problem: str
) -> None:
    response = await page_browser.client.get("/accounts/providers/test/login", params=parameters)
    assert response.status_code == 422
    assert problem == "invalid-input" or is_problem(response, 422, problem)


async def exchange_form(browser: Browser) -> dict[str, str]:
    """Log in, and return the request of the frontend for tokens."""
    response = await browser.log_in(code_challenge=challenge_of(VERIFIER))
    code = fragment_of(response)["code"]
    return {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}


# --- redirects and cookies ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"redirect_uri": "https://evil.example.com"},
        {"next": "https://evil.example.com", "return_to": "//evil.example.com"},
        {"state": "https://evil.example.com"},
    ],
)
async def test_parameters_change_no_redirect(
    page_browser: Browser, parameters: dict[str, str]
) -> None:
    challenge = {"code_challenge": challenge_of(VERIFIER)}
    assert "evil" not in await page_browser.begin(**parameters, **challenge)
    response = await page_browser.client.get("/accounts/providers/test/callback", params=parameters)
    assert response.headers["Location"] == f"{PAGE}#error=login-expired"


async def test_cookie_is_bound_to_the_host_outside_of_development(
    settings: Settings, provider: LoginProvider, clean_tables: None
) -> None:
    del clean_tables
    entry = provider_entry(provider) | {
        "discovery_url": f"https://login.example.com{DISCOVERY}",
    }
    values = {"environment": "staging", "allowed_hosts": ["api.example.com"]}
    # No test reaches this provider, so the log-in is one with GitHub, which needs no request.
    github = {"github_client_id": "an id", "github_client_secret": "a secret"}
    async with service_with_providers(
        settings, **values, login_providers=[entry], **github
    ) as client:
        headers = {"Host": "api.example.com"}
        response = await client.get("/accounts/providers/github/login", headers=headers)
    (cookie,) = response.headers.get_list("Set-Cookie")
    name, *attributes = cookie.split("; ")
    assert name.startswith("__Host-login=")
    assert {attribute.lower() for attribute in attributes} == {
        "httponly",
        "max-age=600",
        "path=/",
        "samesite=lax",
        "secure",
    }
    assert response.headers["Location"].startswith("https://github.com/login/oauth/authorize?")


# --- limits ---------------------------------------------------------------------------------------


async def test_starts_are_limited_for_each_client_and_success_is_not_counted(
    browser: Browser, settings: Settings
) -> None:
    async def log_in_and_count() -> int:
        await browser.tokens()
        return await count_rows(settings, "attempts WHERE ends_at > now()")

    assert await log_in_and_count() == 0
    spend = text(
        "INSERT INTO attempts (digest, ends_at) SELECT digest, now() + interval '1 day' FROM "
        "attempts ON CONFLICT (digest) DO UPDATE SET ends_at = excluded.ends_at"
    )
    async with open_database(settings) as database, database.session() as session:
        await session.execute(spend)
    response = await browser.client.get("/accounts/providers/test/login")
    assert is_problem(response, 429, "too-many-attempts")
    assert CLIENT.burst == 100
