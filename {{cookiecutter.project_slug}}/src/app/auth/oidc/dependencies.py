"""Authentication with the access tokens of the provider, and permissions."""

import uuid
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import OpenIdConnect, SecurityScopes
from fastapi.security.utils import get_authorization_scheme_param

from app.auth.oidc.tokens import Identity, ProviderTokens
from app.web.dependencies import from_state
from app.web.operator_token import TokenRequired
from app.web.problems import Problem

SCHEME_NAME = "OpenIdConnect"
# The URL depends on the settings: openapi.py writes it into the document.
_scheme = OpenIdConnect(openIdConnectUrl="", scheme_name=SCHEME_NAME, auto_error=False)
ProviderTokensDep = Annotated[ProviderTokens, from_state("provider_tokens")]


class PermissionRequired(Problem):
    """The access token is valid, and lacks a permission."""

    status = 403


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


CurrentIdentity = Annotated[Identity, Depends(identify)]


async def authenticate(identity: CurrentIdentity) -> uuid.UUID:
    """Return the account id of the sender."""
    return identity.account_id


async def check_permissions(required: SecurityScopes, identity: CurrentIdentity) -> Identity:
    """Return the sender of the request, if it has every required permission.

    Raises:
        PermissionRequired: a permission is missing.
    """
    if not identity.permissions.issuperset(required.scopes):
        challenge = f'Bearer error="insufficient_scope", scope="{required.scope_str}"'
        raise PermissionRequired(
            f"The access token needs the permission {required.scope_str}.",
            headers={"WWW-Authenticate": challenge},  # RFC 6750, 3.1
        )
    return identity


def Requires(*permissions: str) -> Any:  # noqa: N802 - used like Depends()
    """Require permissions: use it in the route's `dependencies`, or with Annotated[Identity, ...].

    Args:
        permissions: scopes or roles, as in "bookmarks:write". The sender needs all of them.
    """
    return Security(check_permissions, scopes=permissions)
