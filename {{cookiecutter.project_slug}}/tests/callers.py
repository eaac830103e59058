"""Somebody who is logged in."""

import uuid
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient

from app.access import Access
from app.settings import Settings


@pytest.fixture
async def logged_in(service: AsyncClient, settings: Settings) -> AsyncIterator[None]:
    """The service's client sends an access token with every request."""
    service.headers["Authorization"] = f"Bearer {Access(settings).issue(uuid.uuid4())}"
    yield
    del service.headers["Authorization"]
