"""Who calls: somebody who is logged in, and strangers."""

import uuid
from collections.abc import AsyncIterator
from ipaddress import IPv6Address

import pytest
from httpx import ASGITransport, AsyncClient

from app.auth.tokens import AccessTokens
from app.settings import Settings


@pytest.fixture
async def logged_in(service: AsyncClient, settings: Settings) -> AsyncIterator[None]:
    """The service's client sends an access token with every request."""
    service.headers["Authorization"] = f"Bearer {AccessTokens(settings).issue(uuid.uuid4())}"
    yield
    del service.headers["Authorization"]


@pytest.fixture
async def stranger(
    service: AsyncClient,
    clean_tables: None,  # noqa: ARG001 - it cleans up
) -> AsyncIterator[AsyncClient]:
    """A client who has not logged in, from an address of its own, on empty tables."""
    transport = service._transport  # noqa: SLF001 - httpx has no other way to it
    assert isinstance(transport, ASGITransport)
    address = str(IPv6Address(uuid.uuid4().int))
    elsewhere = ASGITransport(transport.app, client=(address, 1))
    async with AsyncClient(transport=elsewhere, base_url=service.base_url) as client:
        yield client
