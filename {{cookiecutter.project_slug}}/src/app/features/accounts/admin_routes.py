"""The routes for administrators."""

import uuid
from typing import Annotated

from fastapi import APIRouter

from app.auth.dependencies import Requires
from app.auth.identity import Identity
from app.features.accounts import administration, errors
from app.features.accounts.schemas import AdministeredAccount
from app.web.dependencies import Session
from app.web.problems import responses

router = APIRouter()
CHANGED = responses(errors.AccountNotFound, errors.RoleRevoked)
Writer = Annotated[Identity, Requires("accounts:write")]


@router.post("/{account_id}/disable", responses=CHANGED)
async def disable_account(
    account_id: uuid.UUID, administrator: Writer, session: Session
) -> AdministeredAccount:
    """Disable an account. Its sessions end, and its access tokens when they expire."""
    return await administration.disable(session, administrator.account_id, account_id)


@router.post("/{account_id}/enable", responses=CHANGED)
async def enable_account(
    account_id: uuid.UUID, administrator: Writer, session: Session
) -> AdministeredAccount:
    """Enable an account. It can log in again."""
    return await administration.enable(session, administrator.account_id, account_id)
