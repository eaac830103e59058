"""Dependencies for routes that need an account."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends

from app.auth import login  # option: accounts
from app.auth.oidc import dependencies as oidc  # option: oidc

# The functions that authenticate a request. The first one is used.
AUTHENTICATE: list[Callable[..., Awaitable[uuid.UUID]]] = [
    login.authenticate,  # option: accounts
    oidc.authenticate,  # option: oidc
]

CurrentAccountId = Annotated[uuid.UUID, Depends(AUTHENTICATE[0])]
AccountRequired = Depends(AUTHENTICATE[0])
