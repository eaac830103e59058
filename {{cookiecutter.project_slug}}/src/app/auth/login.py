"""Authentication with the access tokens that this service issues at log-in."""

import uuid
from typing import Annotated

from fastapi import Depends
from fastapi.security import OAuth2PasswordBearer

from app.auth.errors import InvalidToken
from app.auth.tokens import AccessTokens, InvalidAccessToken
from app.web.dependencies import from_state
from app.web.operator_token import TokenRequired

AccessTokensDep = Annotated[AccessTokens, from_state("access_tokens")]
_bearer = OAuth2PasswordBearer("accounts/login", auto_error=False)


async def authenticate(
    tokens: AccessTokensDep, token: Annotated[str | None, Depends(_bearer)]
) -> uuid.UUID:
    """Return the account id of the access token in the request.

    Raises:
        TokenRequired: the request has no token.
        InvalidToken: the token is expired or not valid.
    """
    if token is None:
        raise TokenRequired("Log in, and send the access token.")
    try:
        return tokens.verify(token)
    except InvalidAccessToken as error:
        raise InvalidToken from error
