"""Requests with access tokens of the provider, and the OpenAPI document."""

import json
import re
import uuid
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Security
from httpx import AsyncClient

from app.auth.identity import Identity
from app.auth.oidc.dependencies import identify
from app.auth.oidc.provider import document_provider, open_provider
from app.auth.permissions import create_check
from app.main import create_app
from app.settings import Settings
from conftest import is_problem, running
from oidc_provider import AUDIENCE, Provider
from provider_accounts import shared_provider
from small_app import create_small_app

PROVIDER = shared_provider()
Sender = Annotated[Identity, Depends(identify)]
check_permissions = create_check(identify)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    async with open_provider(settings) as tokens:
        app = create_small_app(settings, provider_tokens=tokens)
        document_provider(app, settings)

        @app.get("/_test/account")
        async def show_account(sender: Sender) -> uuid.UUID:
            return sender.account_id

        @app.get("/_test/subject")
        async def show_subject(
            identity: Annotated[
                Identity, Security(check_permissions, scopes=["a:read", "a:write"])
            ],
        ) -> str:
            return identity.subject

        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with running(app) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_request_with_a_valid_token_has_its_account_id(client: AsyncClient) -> None:
    response = await client.get("/_test/account", headers=bearer(PROVIDER.issue()))
    assert response.status_code == 200
    expected = uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, PROVIDER.issuer), "grace")
    assert response.json() == str(expected)


@pytest.mark.parametrize("path", ["/_test/account", "/_test/subject"])
@pytest.mark.parametrize(
    ("authorization", "challenge", "name"),
    [
        (None, "Bearer", "token-required"),
        ("Basic YTpi", "Bearer", "token-required"),
        ("Bearer", 'Bearer error="invalid_token"', "invalid-token"),
        ("Bearer nonsense", 'Bearer error="invalid_token"', "invalid-token"),
    ],
)
async def test_request_without_a_valid_token_returns_401_with_a_challenge(
    client: AsyncClient, path: str, authorization: str | None, challenge: str, name: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = await client.get(path, headers=headers)
    assert is_problem(response, 401, name)
    assert response.headers["WWW-Authenticate"] == challenge


@pytest.mark.parametrize("scope", [None, "a:read", "a:write other", "a:read a:writes"])
async def test_token_without_every_permission_returns_403_with_a_challenge(
    client: AsyncClient, scope: str | None
) -> None:
    response = await client.get("/_test/subject", headers=bearer(PROVIDER.issue(scope=scope)))
    assert is_problem(response, 403, "permission-required")
    assert response.headers["WWW-Authenticate"] == (
        'Bearer error="insufficient_scope", scope="a:read a:write"'
    )


async def test_token_with_every_permission_is_accepted(client: AsyncClient) -> None:
    token = PROVIDER.issue(scope="a:read", roles=["a:write"])
    response = await client.get("/_test/subject", headers=bearer(token))
    assert (response.status_code, response.json()) == (200, "grace")


async def test_token_of_a_request_is_verified_once(settings: Settings) -> None:
    async with open_provider(settings) as tokens:
        verified = []

        class CountedTokens:
            async def verify(self, token: str) -> Identity:
                verified.append(token)
                return await tokens.verify(token)

        app = create_small_app(settings, provider_tokens=CountedTokens())

        @app.get(
            "/_test/twice",
            dependencies=[Security(check_permissions, scopes=[name]) for name in "ab"],
        )
        async def show_account(sender: Sender) -> uuid.UUID:
            return sender.account_id

        async with running(app) as client:
            for number in (1, 2):
                token = PROVIDER.issue(scope="a b", sub=str(number))
                response = await client.get("/_test/twice", headers=bearer(token))
                assert response.status_code == 200
                assert verified[-1] == token
                assert len(verified) == number


async def test_outage_of_the_provider_returns_503_and_leaves_health_and_known_keys(
    settings: Settings,
) -> None:
    provider = Provider()
    settings = settings.model_copy(update={"oidc_issuer": provider.issuer})
    provider.stop()
    async with open_provider(settings) as tokens, running(create_app(settings)) as service:
        app = create_small_app(settings, provider_tokens=tokens)

        @app.get("/_test/account")
        async def show_account(sender: Sender) -> uuid.UUID:
            return sender.account_id

        async with running(app) as client:
            response = await client.get("/_test/account", headers=bearer(provider.issue()))
            assert is_problem(response, 503, "provider-unavailable")
            assert response.headers["Retry-After"] == "10"
            assert provider.issuer not in response.text
            forged = provider.issue(algorithm="HS256", key="k" * 32)
            response = await client.get("/_test/account", headers=bearer(forged))
            assert is_problem(response, 401, "invalid-token")
        assert (await service.get("/health/ready")).status_code == 200
        components = (await service.get("/health/detailed")).json()["components"]
        assert not [name for name in components if re.search("oidc|provider", name)]


def test_permissions_are_in_the_openapi_document(app: FastAPI) -> None:
    for _ in range(2):
        document = app.openapi()
        account = document["paths"]["/_test/account"]["get"]
        subject = document["paths"]["/_test/subject"]["get"]
        assert account["security"] == [{"OpenIdConnect": []}]
        assert subject["security"] == [{"OpenIdConnect": ["a:read", "a:write"]}]
        assert "403" not in account["responses"]
        for status in ("401", "403"):
            assert list(subject["responses"][status]["content"]) == ["application/problem+json"]
        assert document["components"]["securitySchemes"]["OpenIdConnect"] == {
            "type": "openIdConnect",
            "openIdConnectUrl": f"{PROVIDER.issuer}/.well-known/openid-configuration",
        }


def test_document_without_a_provider_takes_any_bearer_token(settings: Settings) -> None:
    app = create_small_app(settings)
    document_provider(app, settings.model_copy(update={"oidc_issuer": None}))

    @app.get("/_test/account", dependencies=[Depends(identify)])
    async def show_nothing() -> None: ...

    assert app.openapi()["components"]["securitySchemes"]["OpenIdConnect"] == {
        "type": "http",
        "scheme": "bearer",
    }


async def test_docs_page_logs_in_with_pkce_and_may_reach_the_provider(settings: Settings) -> None:
    settings = settings.model_copy(update={"oidc_client_id": "docs"})
    async with running(create_app(settings)) as client:
        page = await client.get("/docs")
        other = await client.get("/health")
    (found,) = re.findall(r"ui\.initOAuth\((\{.*?\})\)", page.text, re.DOTALL)
    assert json.loads(found) == {
        "clientId": "docs",
        "scopes": "openid",
        "usePkceWithAuthorizationCodeGrant": True,
        "additionalQueryStringParams": {"audience": AUDIENCE},
    }
    policy = page.headers["Content-Security-Policy"]
    assert f"connect-src 'self' {PROVIDER.issuer}" in policy.split("; ")
    assert PROVIDER.issuer not in other.headers["Content-Security-Policy"]
