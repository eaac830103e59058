"""Refresh tokens: the session's id and a secret. The database stores only digests.

The successor of a token is derived from it with a key, so a repeated exchange within the grace
period returns the same successor, and no token is stored.
"""

import hashlib
import hmac
import re
import secrets
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from app.auth.settings import AuthSettings, parse_keys

SECRET_BYTES = 32  # 256 random bits cannot be guessed, so a digest without a salt suffices
FORM = re.compile(r"[A-Za-z0-9_-]{64}")  # 48 bytes


@dataclass(frozen=True)
class RefreshToken:
    """A refresh token of a session."""

    session_id: uuid.UUID
    secret: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.secret).digest()

    @property
    def text(self) -> str:
        return urlsafe_b64encode(self.session_id.bytes + self.secret).decode()


class RefreshTokens:
    """Create refresh tokens, and derive the successors of used ones."""

    def __init__(self, settings: AuthSettings) -> None:
        keys = settings.auth_keys
        # Production requires AUTH_KEYS. The first key signs access tokens, too.
        secret = next(iter(parse_keys(keys.get_secret_value()).values())) if keys else None
        self._key = secret.encode() if secret else secrets.token_bytes(SECRET_BYTES)

    def create(self) -> RefreshToken:
        """Return the first token of a new session."""
        return RefreshToken(uuid.uuid4(), secrets.token_bytes(SECRET_BYTES))

    def successor(self, token: RefreshToken) -> RefreshToken:
        """Return the token that replaces a used one. It cannot be derived without the key."""
        message = b"refresh token" + token.session_id.bytes + token.secret
        secret = hmac.digest(self._key, message, "sha256")
        return RefreshToken(token.session_id, secret)


def parse_refresh_token(text: str) -> RefreshToken | None:
    """Return a refresh token, or None if the text has not the form of one."""
    if not FORM.fullmatch(text):
        return None
    content = urlsafe_b64decode(text)
    return RefreshToken(uuid.UUID(bytes=content[:16]), content[16:])
