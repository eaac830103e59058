"""Tokens that open what only operators should see."""

import hmac
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from app.errors import NotFound, Unauthorized
from app.settings import Settings


class TokenRequired(Unauthorized):
    type = "urn:problem:token-required"
    title = "Token Required"


_bearer = HTTPBearer(
    scheme_name="OperatorToken",
    description="The operator's token: HEALTH_TOKEN of the settings.",
    auto_error=False,  # require_token() answers with a problem
)
SentToken = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def require_token(
    settings: Settings, token: SecretStr | None, sent: HTTPAuthorizationCredentials | None
) -> None:
    """Let nobody in without the token; where none is set, everybody in development and tests.

    Args:
        settings: say where this runs.
        token: what opens it, if anything does.
        sent: the bearer token that was sent, if any.

    Raises:
        NotFound: there is no token, so it is closed here.
        TokenRequired: another token was sent, or none.
    """
    if token is None:
        if settings.environment in {"staging", "production"}:
            raise NotFound
        return
    given = sent.credentials if sent else ""
    if not hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
        raise TokenRequired("Send the token.")
