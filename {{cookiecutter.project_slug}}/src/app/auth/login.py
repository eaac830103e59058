"""Authentication with the access tokens that this service issues at log-in, and with API keys."""

from typing import Annotated, Protocol

from fastapi import Depends
from fastapi.security import OAuth2PasswordBearer

from app.auth.errors import InvalidToken
from app.auth.identity import Identity
from app.auth.roles import SCOPES
from app.auth.tokens import AccessTokens, InvalidAccessToken
from app.web.dependencies import from_state
from app.web.operator_token import TokenRequired

AccessTokensDep = Annotated[AccessTokens, from_state("access_tokens")]
_bearer = OAuth2PasswordBearer("accounts/login", scopes=SCOPES, auto_error=False)
SentToken = Annotated[str | None, Depends(_bearer)]


class KeyVerifier(Protocol):
    """Verifies API keys. The package that stores them implements it."""

    def is_key(self, token: str) -> bool:
        """Return whether a bearer token has the form of an API key."""

    async def verify(self, key: str) -> Identity | None:
        """Return the sender of a key, or None if the key is not valid."""


async def identify(tokens: AccessTokensDep, token: SentToken) -> Identity:
    """Return the account of the access token in the request. API keys are refused.

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


async def identify_with_key(
    tokens: AccessTokensDep,
    keys: Annotated[KeyVerifier, from_state("api_keys")],
    token: SentToken,
) -> Identity:
    """Return the account of the access token or of the API key in the request.

    Raises:
        TokenRequired: the request has no token.
        InvalidToken: the token or the key is expired or not valid.
    """
    if token is None or not keys.is_key(token):
        return await identify(tokens, token)
    identity = await keys.verify(token)
    if identity is None:
        raise InvalidToken
    return identity
