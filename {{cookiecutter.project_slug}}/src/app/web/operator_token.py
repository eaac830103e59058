"""The operator token, which opens /health/detailed and other endpoints for operators."""

import hmac
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from app.errors import NotAuthenticated, NotFound
from app.settings_base import EnvironmentSettings


class TokenRequired(NotAuthenticated):
    """The request has no valid token."""


_bearer = HTTPBearer(
    scheme_name="OperatorToken",
    description="The operator token: HEALTH_TOKEN in the settings.",
    auto_error=False,  # require_token() raises a problem
)
SentToken = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def require_token(settings: EnvironmentSettings, token: SecretStr | None, sent: SentToken) -> None:
    """Check the token of a request. Without a configured token, development and tests are open.

    Args:
        settings: the environment.
        token: the configured token, if any.
        sent: the bearer token of the request, if any.

    Raises:
        NotFound: no token is configured, so the endpoint is closed in this environment.
        TokenRequired: the request has another token, or none.
    """
    if token is None:
        if settings.is_deployed:
            raise NotFound
        return
    given = sent.credentials if sent else ""
    if not hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
        raise TokenRequired("Send the operator token as a bearer token.")
