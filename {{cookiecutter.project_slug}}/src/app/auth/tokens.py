"""Access tokens: signed JWTs; `sub` is the account, `roles` its roles, `sid` the log-in session.

Verification needs no database. A token cannot be revoked, so its lifetime is short, and a change of
roles has its effect at the next refresh.
"""

import secrets
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import jwt

from app.auth.identity import Identity
from app.auth.roles import permissions_of
from app.auth.settings import AuthSettings, parse_keys
from app.service_info import SERVICE_NAME

ALGORITHM = "HS256"
AUDIENCE = "access"  # a token that these keys sign for another purpose is no access token
LEEWAY_SECONDS = 10  # by which the clocks of replicas may differ


class InvalidAccessToken(Exception):
    """The token is expired, forged, or signed with a key that is no longer in use."""


class AccessTokens:
    """Issue and verify access tokens."""

    def __init__(self, settings: AuthSettings) -> None:
        keys = settings.auth_keys
        self._keys = (
            parse_keys(keys.get_secret_value())
            if keys
            else {"generated": secrets.token_urlsafe(32)}  # production requires AUTH_KEYS
        )
        self.lifetime = timedelta(minutes=settings.access_token_minutes)

    def issue(
        self,
        account_id: uuid.UUID,
        roles: Sequence[str] = (),
        session_id: uuid.UUID | None = None,
    ) -> str:
        """Return a token of this account, signed with the first key."""
        name, secret = next(iter(self._keys.items()))
        now = datetime.now(UTC)
        claims = {
            "iss": SERVICE_NAME,
            "aud": AUDIENCE,
            "sub": str(account_id),
            "iat": now,
            "exp": now + self.lifetime,
            "roles": list(roles),
        }
        if session_id:
            claims["sid"] = str(session_id)
        return jwt.encode(claims, secret, ALGORITHM, headers={"kid": name})

    def verify(self, token: str) -> Identity:
        """Return the sender of a token.

        Raises:
            InvalidAccessToken: the token is not valid.
        """
        try:
            claims = jwt.decode(
                token,
                self._keys[jwt.get_unverified_header(token)["kid"]],
                algorithms=[ALGORITHM],
                issuer=SERVICE_NAME,
                audience=AUDIENCE,
                leeway=LEEWAY_SECONDS,
                options={"require": ["aud", "exp", "iat", "iss", "sub"]},
            )
            account_id = uuid.UUID(claims["sub"])
            session_id = uuid.UUID(claims["sid"]) if "sid" in claims else None
            permissions = permissions_of(claims.get("roles", ()))
        except (jwt.InvalidTokenError, KeyError, ValueError) as error:
            raise InvalidAccessToken from error
        return Identity(account_id, str(account_id), permissions, session_id)
