"""The routes of accounts."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Response

from app.auth.dependencies import CurrentAccountId
from app.auth.settings import AuthSettings
from app.auth.tokens import AccessTokens
from app.features.accounts import errors, service
from app.features.accounts.schemas import AccountRead, Registration, SessionToken, TokenForm, Tokens
from app.rate_limit.dependencies import Limit  # option: rate_limit
from app.web.dependencies import DatabaseDep, ReadConnection, Session, from_state
from app.web.problems import responses

TAG = {"name": "accounts", "description": "Registration, and sessions with access tokens."}
router = APIRouter(prefix="/accounts", tags=[TAG["name"]])
AccountsDep = Annotated[service.Accounts, from_state("accounts")]


def create_state(settings: AuthSettings) -> dict[str, Any]:
    """Return the objects that the dependencies of accounts and access tokens need."""
    tokens = AccessTokens(settings)
    return {"access_tokens": tokens, "accounts": service.Accounts(settings, tokens)}


async def forbid_storing(response: Response) -> None:
    """Forbid caches to store a response with tokens (RFC 6749, 5.1)."""
    response.headers["Cache-Control"] = "no-store"


@router.post(
    "",
    status_code=201,
    dependencies=[Limit("10/minute")],  # option: rate_limit
    responses=responses(errors.DuplicateAccount),
)
async def register_account(
    new: Registration, database: DatabaseDep, accounts: AccountsDep
) -> AccountRead:
    """Register an e-mail address with a password."""
    return await accounts.register(database, new)


@router.post(
    "/login",
    dependencies=[
        Limit("10/minute", except_form=("grant_type", "refresh_token")),  # option: rate_limit
        Depends(forbid_storing),
    ],
    responses=responses(errors.WrongCredentials, errors.SessionEnded),
)
async def grant_tokens(
    form: Annotated[TokenForm, Form()], database: DatabaseDep, accounts: AccountsDep
) -> Tokens:
    """Start a session with a password, or continue it with a refresh token.

    This is the token endpoint of OAuth 2.0 (RFC 6749, 3.2). Errors have the member `error`.
    """
    return await accounts.grant(database, form)


@router.post("/logout", status_code=204)
async def log_out(sent: SessionToken, session: Session) -> None:
    """End the session of a refresh token. Its access tokens stay valid until they expire."""
    await service.log_out(session, sent.refresh_token)


@router.get("/me")
async def read_own_account(account_id: CurrentAccountId, connection: ReadConnection) -> AccountRead:
    """Return the account of the access token."""
    return await service.find(connection, account_id)
