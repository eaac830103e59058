"""Tokens that open what only operators should see."""

import hmac

from pydantic import SecretStr

from app.errors import NotFound, Unauthorized
from app.settings import Settings


class TokenRequired(Unauthorized):
    type = "urn:problem:token-required"
    title = "Token Required"


def require_token(settings: Settings, token: SecretStr | None, authorization: str) -> None:
    """Let nobody in without the token; where none is set, everybody in development and tests.

    Args:
        settings: say where this runs.
        token: what opens it, if anything does.
        authorization: the header that was sent, or nothing.

    Raises:
        NotFound: there is no token, so it is closed here.
        TokenRequired: another token was sent, or none.
    """
    if token is None:
        if settings.environment in {"staging", "production"}:
            raise NotFound
        return
    expected = f"Bearer {token.get_secret_value()}"
    if not hmac.compare_digest(authorization.encode(), expected.encode()):
        raise TokenRequired("Send the token.")
