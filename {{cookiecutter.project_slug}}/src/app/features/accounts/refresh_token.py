"""Refresh tokens: the session's id and a secret. The database stores only a digest."""

import hashlib
import secrets
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode

SECRET_BYTES = 32  # 256 random bits cannot be guessed, so a digest without a salt suffices


def new_refresh_token(session_id: uuid.UUID) -> tuple[str, bytes]:
    """Return a token, and the digest to store."""
    secret = secrets.token_bytes(SECRET_BYTES)
    token = urlsafe_b64encode(session_id.bytes + secret).decode()
    return token, hashlib.sha256(secret).digest()


def parse_refresh_token(token: str) -> tuple[uuid.UUID, bytes]:
    """Return the session's id, and the digest of the secret."""
    content = urlsafe_b64decode(token)
    return uuid.UUID(bytes=content[:16]), hashlib.sha256(content[16:]).digest()
