"""Refresh tokens: the session's id and a secret. The database stores only a digest."""

import hashlib
import secrets
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta

from sqlalchemy import func

from app.features.accounts.models import LoginSession

SECRET_BYTES = 32  # 256 random bits cannot be guessed, so a digest without a salt suffices


def issue_refresh_token(login: LoginSession, lifetime: timedelta) -> str:
    """Return a new refresh token of a session. The earlier one is not valid any more."""
    secret = secrets.token_bytes(SECRET_BYTES)
    login.digest = hashlib.sha256(secret).digest()
    login.expires_at = func.now() + lifetime
    return urlsafe_b64encode(login.id.bytes + secret).decode()


def parse_refresh_token(token: str) -> tuple[uuid.UUID, bytes]:
    """Return the session's id, and the digest of the secret."""
    content = urlsafe_b64decode(token)
    return uuid.UUID(bytes=content[:16]), hashlib.sha256(content[16:]).digest()
