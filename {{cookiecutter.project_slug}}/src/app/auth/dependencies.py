"""Dependencies for routes that need an account or permissions."""

import uuid
from typing import Annotated, Any

from fastapi import Depends, Security

from app.auth import login  # option: accounts
from app.auth.identity import Identity
from app.auth.oidc import dependencies as oidc  # option: oidc
from app.auth.permissions import Identify, create_check

# The functions that authenticate a request: of a user, and of a user or a machine. The first pair
# is used.
IDENTIFY: list[tuple[Identify, Identify]] = [
    (login.identify, login.identify_with_key),  # option: accounts
    (oidc.identify, oidc.identify),  # option: oidc
]
_identify_user, _identify = IDENTIFY[0]
_check_permissions = create_check(_identify)

CurrentIdentity = Annotated[Identity, Depends(_identify_user)]


async def read_account_id(identity: CurrentIdentity) -> uuid.UUID:
    """Return the account id of the sender."""
    return identity.account_id


CurrentAccountId = Annotated[uuid.UUID, Depends(read_account_id)]
AccountRequired = Depends(_identify_user)


def Requires(*permissions: str) -> Any:  # noqa: N802 - used like Depends()
    """Require permissions: use it in the route's `dependencies`, or with Annotated[Identity, ...].

    Args:
        permissions: as in "orders:write". The sender needs all of them.
    """
    return Security(_check_permissions, scopes=permissions)
