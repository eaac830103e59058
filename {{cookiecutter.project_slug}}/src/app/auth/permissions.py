"""The check of permissions, for every kind of authentication."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import SecurityScopes

from app.auth.errors import PermissionRequired
from app.auth.identity import Identity

Identify = Callable[..., Awaitable[Identity]]


def create_check(identify: Identify) -> Identify:
    """Return a dependency for `Security(..., scopes=...)`.

    Args:
        identify: the dependency that authenticates the request.
    """

    async def check_permissions(
        required: SecurityScopes, identity: Annotated[Identity, Depends(identify)]
    ) -> Identity:
        """Return the sender of the request, if it has every required permission.

        Raises:
            PermissionRequired: a permission is missing.
        """
        if not identity.permissions.issuperset(required.scopes):
            raise PermissionRequired(required.scope_str)
        return identity

    return check_permissions
