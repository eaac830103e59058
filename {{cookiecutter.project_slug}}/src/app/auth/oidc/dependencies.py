"""Authentication with the access tokens of the provider."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OpenIdConnect
from fastapi.security.utils import get_authorization_scheme_param

from app.auth.identity import Identity
from app.auth.oidc.tokens import ProviderTokens
from app.web.dependencies import from_state
from app.web.operator_token import TokenRequired

SCHEME_NAME = "OpenIdConnect"
# The URL depends on the settings: openapi.py writes it into the document.
_scheme = OpenIdConnect(openIdConnectUrl="", scheme_name=SCHEME_NAME, auto_error=False)
ProviderTokensDep = Annotated[ProviderTokens, from_state("provider_tokens")]


async def identify(
    request: Request,
    tokens: ProviderTokensDep,
    authorization: Annotated[str | None, Depends(_scheme)],
) -> Identity:
    """Return the sender of the request. The token of a request is verified once.

    Raises:
        TokenRequired: the request has no token.
        InvalidToken: the token is expired or not valid.
        ProviderUnavailable: the provider's keys are needed and cannot be fetched.
    """
    scheme, token = get_authorization_scheme_param(authorization)
    if scheme.lower() != "bearer":
        raise TokenRequired("Log in at the identity provider, and send the access token.")
    # FastAPI calls a dependency again for each set of scopes, and a signature takes 0.1 ms.
    state = request.scope["state"]
    if "identity" not in state:
        state["identity"] = await tokens.verify(token)
    identity: Identity = state["identity"]
    return identity
