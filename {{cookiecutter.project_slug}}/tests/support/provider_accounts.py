"""Accounts with access tokens of a provider."""

import functools
import uuid

from app.settings import Settings
from oidc_provider import AUDIENCE, Provider


@functools.cache
def shared_provider() -> Provider:
    """Return the provider of the tests that only need valid tokens. It ends with the process."""
    return Provider()


def provider_values(environment: object) -> dict[str, object]:
    """Return settings for the shared provider, or for one that no test reaches."""
    issuer = shared_provider().issuer if environment == "test" else "https://login.example.com"
    return {"oidc_issuer": issuer, "oidc_audience": AUDIENCE}


def issue_token(settings: Settings) -> tuple[uuid.UUID, str]:
    """Return the id of a new account of the shared provider, and its access token."""
    subject = str(uuid.uuid4())
    issuer = settings.oidc_issuer or ""
    account_id = uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, issuer), subject)
    return account_id, shared_provider().issue(sub=subject)


def issue_administrator_token(_settings: Settings) -> str:
    """Return an access token that may read every job."""
    return shared_provider().issue(sub=str(uuid.uuid4()), scope="jobs:read")
