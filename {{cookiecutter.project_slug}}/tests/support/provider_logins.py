"""Browsers that log in with a provider, and services that have providers."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from httpx import ASGITransport, AsyncClient, Response

from app.main import create_app
from app.settings import Settings
from login_provider import CLIENT_ID, CLIENT_SECRET, GitHubServer, LoginProvider
from oidc_provider import DISCOVERY

PAGE = "https://app.example.com/login"


class Browser:
    """A browser at an address of its own, with the cookies of the service."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def begin(self, name: str = "test", **parameters: str) -> str:
        """Begin a log-in, and return the URL of the provider."""
        response = await self.client.get(f"/accounts/providers/{name}/login", params=parameters)
        assert response.status_code == 303, response.text
        return response.headers["Location"]

    async def log_in(self, name: str = "test", **parameters: str) -> Response:
        """Log in, and return the response to the callback."""
        return await self.client.get(await visit(await self.begin(name, **parameters)))

    async def tokens(self, name: str = "test") -> dict[str, str]:
        response = await self.log_in(name)
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]


async def visit(url: str) -> str:
    """Log in and consent at a provider, and return the URL of the callback."""
    async with AsyncClient() as provider:
        response = await provider.get(url)
    assert response.status_code == 302, response.text
    return response.headers["Location"]


def fragment_of(response: Response) -> dict[str, str]:
    """Return the parameters for the frontend."""
    assert response.status_code == 303, response.text
    url = urlsplit(response.headers["Location"])
    assert url._replace(fragment="").geturl() == PAGE
    return dict(parse_qsl(url.fragment))


def changed(url: str, **changes: str | None) -> str:
    """Return a URL with other query parameters. None removes one."""
    query = dict(parse_qsl(urlsplit(url).query)) | changes
    return str(httpx.URL(url, params={k: v for k, v in query.items() if v is not None}))


def provider_entry(provider: LoginProvider, name: str = "test") -> dict[str, str]:
    """Return an entry of LOGIN_PROVIDERS."""
    url = f"{provider.issuer}{DISCOVERY}"
    client = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    return {"name": name, "discovery_url": url, **client}


@asynccontextmanager
async def browser_of(client: AsyncClient) -> AsyncIterator[Browser]:
    """Yield a browser of the service that a client has."""
    transport = client._transport  # noqa: SLF001 - httpx offers no public access
    assert isinstance(transport, ASGITransport)
    address = str(IPv6Address(uuid.uuid4().int))
    own_transport = ASGITransport(transport.app, client=(address, 1))
    async with AsyncClient(transport=own_transport, base_url=client.base_url) as own:
        yield Browser(own)


@asynccontextmanager
async def service_with_providers(settings: Settings, **values: Any) -> AsyncIterator[AsyncClient]:
    """Run a service with other settings on the database of the tests."""
    from conftest import running, settings_for  # it imports this module

    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    async with running(create_app(settings_for(url, **values))) as client:
        yield client


@pytest.fixture(scope="session")
def login_provider_process() -> Iterator[LoginProvider]:
    provider = LoginProvider()
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def other_provider() -> Iterator[LoginProvider]:
    provider = LoginProvider()
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def github_process() -> Iterator[GitHubServer]:
    server = GitHubServer()
    yield server
    server.stop()


@pytest.fixture
def provider(login_provider_process: LoginProvider) -> LoginProvider:
    login_provider_process.reset()
    return login_provider_process


@pytest.fixture
def github(github_process: GitHubServer) -> GitHubServer:
    github_process.reset()
    return github_process


@pytest.fixture(scope="session")
def provider_settings(
    login_provider_process: LoginProvider,
    other_provider: LoginProvider,
    github_process: GitHubServer,
) -> dict[str, Any]:
    return {
        "login_providers": [
            provider_entry(login_provider_process),
            provider_entry(other_provider, "other"),
        ],
        "github_url": github_process.issuer,
        "github_client_id": CLIENT_ID,
        "github_client_secret": CLIENT_SECRET,
    }


@pytest.fixture(scope="session")
async def login_service(
    settings: Settings, provider_settings: dict[str, Any]
) -> AsyncIterator[AsyncClient]:
    """Run a service with providers that responds with tokens."""
    async with service_with_providers(settings, **provider_settings) as client:
        yield client


@pytest.fixture(scope="session")
async def page_service(
    settings: Settings, provider_settings: dict[str, Any]
) -> AsyncIterator[AsyncClient]:
    """Run a service with providers that returns to a page of the frontend."""
    values = provider_settings | {"login_redirect_url": PAGE}
    async with service_with_providers(settings, **values) as client:
        yield client


@pytest.fixture
async def browser(
    login_service: AsyncClient,
    clean_tables: None,  # noqa: ARG001 - used for its effect
    provider: LoginProvider,  # noqa: ARG001 - used for its effect
    github: GitHubServer,  # noqa: ARG001 - used for its effect
) -> AsyncIterator[Browser]:
    async with browser_of(login_service) as browser:
        yield browser


@pytest.fixture
async def page_browser(
    page_service: AsyncClient,
    clean_tables: None,  # noqa: ARG001 - used for its effect
    provider: LoginProvider,  # noqa: ARG001 - used for its effect
    github: GitHubServer,  # noqa: ARG001 - used for its effect
) -> AsyncIterator[Browser]:
    async with browser_of(page_service) as browser:
        yield browser
