"""Who is calling: access tokens, given out at log-in and sent with every request.

A token is a JSON Web Token that says whose it is, and its signature says that we said so. Reading
one asks no database; the price is that it is good until it expires, so it expires soon.
"""

import secrets
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, Request
from fastapi.security import OAuth2PasswordBearer

from app.auth.settings import parse_keys
from app.errors import Unauthorized
from app.settings import SERVICE_NAME, Settings
from app.web.operator_token import TokenRequired
from app.web.problems import responses

ALGORITHM = "HS256"
AUDIENCE = "access"  # so that whatever else these keys sign one day is no access token
LEEWAY_SECONDS = 10  # by which the clocks of replicas may differ


class InvalidToken(Unauthorized):
    title = "Invalid Token"
    type = "urn:problem:invalid-token"


class Access:
    """Gives out access tokens, and reads them."""

    def __init__(self, settings: Settings) -> None:
        keys = settings.auth_keys
        self._keys = (
            parse_keys(keys.get_secret_value())
            if keys
            else {"made-up": secrets.token_urlsafe(32)}  # settings.py refuses it in production
        )
        self.lifetime = timedelta(minutes=settings.access_token_minutes)

    def issue(self, account_id: uuid.UUID) -> str:
        """A token of this account, signed with the first key."""
        name, secret = next(iter(self._keys.items()))
        now = datetime.now(UTC)
        claims = {
            "iss": SERVICE_NAME,
            "aud": AUDIENCE,
            "sub": str(account_id),
            "iat": now,
            "exp": now + self.lifetime,
        }
        return jwt.encode(claims, secret, ALGORITHM, headers={"kid": name})

    def identify(self, token: str) -> uuid.UUID:
        """Whose token it is.

        Raises:
            InvalidToken: it is expired, or not one of ours, or its key is no longer in use.
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
            return uuid.UUID(claims["sub"])
        except (jwt.InvalidTokenError, KeyError, ValueError) as error:
            raise InvalidToken(
                "The access token is expired or not valid: get a new one.",
                challenge='Bearer error="invalid_token"',
            ) from error


_sent_token = OAuth2PasswordBearer("accounts/login", auto_error=False)


async def identify_caller(
    request: Request, token: Annotated[str | None, Depends(_sent_token)]
) -> uuid.UUID:
    """The account whose access token was sent.

    Raises:
        TokenRequired: there is none.
        InvalidToken: it is good for nothing.
    """
    if token is None:
        raise TokenRequired("Log in, and send the access token.")
    access: Access = request.app.state.access
    return access.identify(token)


Caller = Annotated[uuid.UUID, Depends(identify_caller)]
AccountRequired = Depends(identify_caller)


def install_access(app: FastAPI, settings: Settings) -> Access:
    """Let routes ask who is calling; in the OpenAPI document, those that do can answer 401."""
    access = app.state.access = Access(settings)
    describe = app.web.openapi
    unauthorized = responses(TokenRequired, InvalidToken)[401]

    def openapi() -> dict[str, Any]:
        document = describe()
        for operations in document["paths"].values():
            for operation in operations.values():
                if "security" in operation:
                    operation["responses"].setdefault("401", unauthorized)
        return document

    app.web.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents replacing this method to extend the document
    return access
