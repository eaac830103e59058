"""The routes of API keys. They need an access token: a key cannot create keys."""

import uuid
from collections.abc import Sequence

from fastapi import APIRouter, Depends

from app.auth.dependencies import CurrentAccountId
from app.features.accounts import api_keys, errors
from app.features.accounts.change_routes import forbid_storing
from app.features.accounts.schemas import KeyCreated, KeyRead, NewKey
from app.web.dependencies import ReadConnection, Session
from app.web.problems import responses

router = APIRouter(prefix="/me/api-keys", dependencies=[Depends(forbid_storing)])


@router.post("", status_code=201, responses=responses(errors.ScopeNotAllowed, errors.TooManyKeys))
async def create_api_key(new: NewKey, account_id: CurrentAccountId, session: Session) -> KeyCreated:
    """Create an API key. Only this response has its text."""
    key, text = await api_keys.create(session, account_id, new)
    return KeyCreated(**key.model_dump(), key=text)


@router.get("")
async def list_api_keys(
    account_id: CurrentAccountId, connection: ReadConnection
) -> Sequence[KeyRead]:
    """Return the API keys of the account, the newest first."""
    return await api_keys.find_all(connection, account_id)


@router.post(
    "/{key_id}/rotation",
    status_code=201,
    responses=responses(errors.KeyNotFound, errors.ScopeNotAllowed, errors.TooManyKeys),
)
async def rotate_api_key(
    key_id: uuid.UUID, account_id: CurrentAccountId, session: Session
) -> KeyCreated:
    """Create a key that replaces another one. The old one stays valid for 24 hours at most."""
    key, text = await api_keys.rotate(session, account_id, key_id)
    return KeyCreated(**key.model_dump(), key=text)


@router.delete("/{key_id}", status_code=204, responses=responses(errors.KeyNotFound))
async def revoke_api_key(key_id: uuid.UUID, account_id: CurrentAccountId, session: Session) -> None:
    """Revoke an API key. It is refused at once."""
    await api_keys.revoke(session, account_id, key_id)
