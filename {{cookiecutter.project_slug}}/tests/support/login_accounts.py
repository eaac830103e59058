"""Accounts with access tokens of this service."""

import uuid

from app.auth.tokens import AccessTokens
from app.settings import Settings


def issue_token(settings: Settings) -> tuple[uuid.UUID, str]:
    """Return the id of a new account, and its access token."""
    account_id = uuid.uuid4()
    return account_id, AccessTokens(settings).issue(account_id)


def issue_administrator_token(settings: Settings) -> str:
    """Return an access token with the role `admin`."""
    return AccessTokens(settings).issue(uuid.uuid4(), ["admin"])
