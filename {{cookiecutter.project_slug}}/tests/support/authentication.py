"""Clients with and without an access token."""

import uuid
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv6Address

import pytest
from httpx import ASGITransport, AsyncClient

import login_accounts  # option: accounts
import provider_accounts  # option: oidc
from app.settings import Settings

# Functions that return the id of a new account, and its access token. The first one is used.
ISSUERS: list[Callable[[Settings], tuple[uuid.UUID, str]]] = [
    login_accounts.issue_token,  # option: accounts
    provider_accounts.issue_token,  # option: oidc
]
issue_token = ISSUERS[0]
# Functions that return an access token with the permissions of an administrator.
ADMINISTRATOR_ISSUERS: list[Callable[[Settings], str]] = [
    login_accounts.issue_administrator_token,  # option: accounts
    provider_accounts.issue_administrator_token,  # option: oidc
]
issue_administrator_token = ADMINISTRATOR_ISSUERS[0]


@pytest.fixture
async def logged_in(service: AsyncClient, settings: Settings) -> AsyncIterator[None]:
    """Send an access token with every request of the service's client."""
    _, token = issue_token(settings)
    service.headers["Authorization"] = f"Bearer {token}"
    yield
    del service.headers["Authorization"]


@pytest.fixture
async def anonymous_client(
    service: AsyncClient,
    clean_tables: None,  # noqa: ARG001 - used for its effect
) -> AsyncIterator[AsyncClient]:
    """Yield a client without a token, with its own address and empty tables."""
    transport = service._transport  # noqa: SLF001 - httpx offers no public access
    assert isinstance(transport, ASGITransport)
    address = str(IPv6Address(uuid.uuid4().int))
    own_transport = ASGITransport(transport.app, client=(address, 1))
    async with AsyncClient(transport=own_transport, base_url=service.base_url) as client:
        yield client
