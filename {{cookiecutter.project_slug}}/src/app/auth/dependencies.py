"""Dependencies for routes that need an account."""

import uuid
from typing import Annotated

from fastapi import Depends
from fastapi.security import OAuth2PasswordBearer

from app.auth.tokens import AccessTokens, InvalidAccessToken
from app.web.dependencies import from_state
from app.web.operator_token import TokenRequired
from app.web.problems import Problem

AccessTokensDep = Annotated[AccessTokens, from_state("access_tokens")]
_bearer = OAuth2PasswordBearer("accounts/login", auto_error=False)


class InvalidToken(Problem):
    status = 401


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
        raise InvalidToken(
            "The access token is expired or not valid: get a new one.",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        ) from error


CurrentAccountId = Annotated[uuid.UUID, Depends(authenticate)]
AccountRequired = Depends(authenticate)
