"""Providers that are down, slow or broken: 503 with Retry-After, and never 500."""

import asyncio
from threading import Event
from typing import Any

import pytest
from httpx import Response

from app.features.accounts.providers import logins
from app.features.accounts.providers.setup import MAX_RESPONSE_BYTES
from app.settings import Settings
from conftest import Lines, is_problem
from login_provider import GitHubServer, LoginProvider, challenge_of
from oidc_provider import DISCOVERY, JWKS, Answer
from provider_logins import (
    Browser,
    browser_of,
    fragment_of,
    provider_entry,
    service_with_providers,
    visit,
)

LARGE = b'{"access_token": "' + b"x" * MAX_RESPONSE_BYTES + b'"}'
BROKEN: dict[str, Answer] = {
    "500": Answer(500, {"error": "server_error"}),
    "503 with HTML": Answer(503, b"<html>"),
    "429": Answer(429, {"message": "too many requests"}),
    "redirect": Answer(302, headers={"Location": "/elsewhere"}),
    "HTML": Answer(200, b"<html>"),
    "no UTF-8": Answer(200, b"\xff\xfe\xff"),
    "list": Answer(200, ["a"]),
    "null": Answer(200, None),
    "empty object": Answer(200, {}),
    "large": Answer(200, LARGE),
    "compressed": Answer(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
    "wrong client secret": Answer(401, {"error": "invalid_client"}),
    "no text": Answer(200, {"access_token": 1, "error": None}),
}


def is_unavailable(response: Response) -> bool:
    return (
        is_problem(response, 503, "provider-unavailable")
        and response.headers["Retry-After"] == "10"
    )


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["test", "github"])
async def test_broken_token_endpoint_is_unavailable(
    browser: Browser, provider: LoginProvider, github: GitHubServer, name: str, answer: Answer
) -> None:
    for server in (provider, github):
        server.answers[server.token] = lambda _request: answer
    assert is_unavailable(await browser.log_in(name))


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("path", ["/api/v3/user", "/api/v3/user/emails"])
async def test_broken_api_of_github_is_unavailable(
    browser: Browser, github: GitHubServer, path: str, answer: Answer
) -> None:
    github.answers[path] = lambda _request: answer
    response = await browser.log_in("github")
    has_no_address = (
        path.endswith("emails")
        and answer.status == 200
        and answer.body
        in (
            ["a"],
            None,
            {},
            {"access_token": 1, "error": None},
        )
    )
    if has_no_address:
        assert is_problem(response, 401, "email-not-verified")
    else:
        assert is_unavailable(response)


@pytest.mark.parametrize("answer", [BROKEN["500"], BROKEN["HTML"], BROKEN["large"]])
async def test_broken_user_info_endpoint_is_unavailable(
    browser: Browser, provider: LoginProvider, answer: Answer
) -> None:
    provider.user_info = provider.user
    provider.answers["/userinfo"] = lambda _request: answer
    assert is_unavailable(await browser.log_in())


@pytest.mark.parametrize("path", [DISCOVERY, JWKS])
@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_broken_discovery_is_unavailable(
    settings: Settings, clean_tables: None, path: str, answer: Answer
) -> None:
    del clean_tables
    provider = LoginProvider()
    provider.answers[path] = lambda _request: answer
    entries = [provider_entry(provider)]
    async with (
        service_with_providers(settings, login_providers=entries) as client,
        browser_of(client) as browser,
    ):
        assert is_unavailable(await browser.client.get("/accounts/providers/test/login"))
    provider.stop()


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "userinfo_endpoint"])
async def test_endpoint_that_is_no_url_is_unavailable(
    settings: Settings, clean_tables: None, name: str
) -> None:
    del clean_tables
    provider = LoginProvider()
    provider.user_info = provider.user
    provider.documents[DISCOVERY][name] = "javascript:alert(1)"
    entries = [provider_entry(provider)]
    async with (
        service_with_providers(settings, login_providers=entries) as client,
        browser_of(client) as browser,
    ):
        start = await browser.client.get("/accounts/providers/test/login")
        if name == "authorization_endpoint":
            assert is_unavailable(start)
        else:
            callback = await visit(start.headers["Location"])
            assert is_unavailable(await browser.client.get(callback))
    provider.stop()


async def test_provider_that_is_down_is_unavailable_and_logins_succeed_when_it_is_back(
    settings: Settings, clean_tables: None, lines: Lines
) -> None:
    del clean_tables
    provider = LoginProvider()
    entries = [provider_entry(provider)]
    async with (
        service_with_providers(settings, login_providers=entries) as client,
        browser_of(client) as browser,
    ):
        callback = await visit(await browser.begin())
        provider.stop()
        assert is_unavailable(await browser.client.get(callback))
        url = await browser.begin()  # the discovery document is known
        provider.start()
        assert (await browser.client.get(await visit(url))).status_code == 200
    provider.stop()
    (failure,) = [line for line in lines() if line["message"] == "log-in provider failed"]
    assert failure["provider"] == "test"
    assert failure["reason"].startswith("ConnectError")


async def test_provider_that_does_not_answer_is_unavailable_after_the_timeout(
    browser: Browser, provider: LoginProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = Event()

    def wait(_request: Any) -> Answer:
        may_answer.wait(60)
        return Answer(500)

    provider.answers[provider.token] = wait
    monkeypatch.setattr(logins, "MAX_SECONDS", 0.1)
    try:
        async with asyncio.timeout(30):
            assert is_unavailable(await browser.log_in())
    finally:
        may_answer.set()


async def test_frontend_gets_the_name_of_an_outage(
    page_browser: Browser, provider: LoginProvider
) -> None:
    provider.answers[provider.token] = lambda _request: BROKEN["500"]
    response = await page_browser.log_in(code_challenge=challenge_of("v" * 43))
    assert fragment_of(response) == {"error": "provider-unavailable"}


async def test_keys_of_the_provider_rotate_without_a_restart(
    settings: Settings, clean_tables: None
) -> None:
    del clean_tables
    provider = LoginProvider()
    entries = [provider_entry(provider)]
    async with (
        service_with_providers(settings, login_providers=entries) as client,
        browser_of(client) as browser,
    ):
        url = await browser.begin()
        assert provider.requests[JWKS] == 1
        provider.rotate()
        # Within the pause after a fetch no other one starts, so this key is unknown.
        assert is_problem(await browser.client.get(await visit(url)), 401, "login-refused")
        provider.stop()
    async with (
        service_with_providers(settings, login_providers=entries) as client,
        browser_of(client) as browser,
    ):
        provider.start()
        await browser.tokens()
    provider.stop()
