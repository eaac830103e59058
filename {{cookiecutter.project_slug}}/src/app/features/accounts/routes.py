"""The routes of accounts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query

from app.auth.dependencies import CurrentAccountId, Requires
from app.auth.tokens import AccessTokens
from app.db.pagination import InvalidCursor
from app.db.session import Database
from app.features.accounts import administration, errors, service
from app.features.accounts.admin_routes import router as admin_router
from app.features.accounts.api_key_routes import router as api_key_router
from app.features.accounts.api_keys import ApiKeys
from app.features.accounts.change_routes import (
    MAILING,
    ClientAddress,
    Languages,
    UserAgent,
    forbid_storing,
)
from app.features.accounts.change_routes import router as change_router
from app.features.accounts.changes import Changes
from app.features.accounts.passwords import Passwords
from app.features.accounts.providers.links import Links
from app.features.accounts.providers.logins import ProviderLogins
from app.features.accounts.providers.routes import router as provider_router
from app.features.accounts.providers.setup import open_providers
from app.features.accounts.schemas import (
    AccountPage,
    AccountQuery,
    AccountRead,
    Registration,
    SessionToken,
    TokenForm,
    Tokens,
)
from app.features.accounts.sessions import Sessions
from app.features.accounts.sessions import log_out as log_out_session
from app.features.accounts.settings import AccountSettings
from app.mail.outbox import open_outbox
from app.rate_limit.dependencies import Limit  # option: rate_limit
from app.web.dependencies import DatabaseDep, ReadConnection, ReadSession, Session, from_state
from app.web.problems import responses

TAG = {"name": "accounts", "description": "Registration, and sessions with access tokens."}
router = APIRouter(prefix="/accounts", tags=[TAG["name"]])
router.include_router(change_router)
router.include_router(provider_router)
router.include_router(api_key_router)
router.include_router(admin_router)
AccountsDep = Annotated[service.Accounts, from_state("accounts")]


@asynccontextmanager
async def open_state(
    settings: AccountSettings, database: Database
) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects that the dependencies of accounts and access tokens need."""
    tokens = AccessTokens(settings)
    sessions = Sessions(settings, tokens)
    async with (
        open_outbox(settings, database) as outbox,
        open_providers(settings) as providers,
    ):
        rules = (Passwords(), sessions, outbox)
        returns_code = settings.login_redirect_url is not None
        yield {
            "access_tokens": tokens,
            "api_keys": ApiKeys(database),
            "accounts": service.Accounts(*rules),
            "account_changes": Changes(*rules),
            "provider_logins": ProviderLogins(
                providers, sessions, Links(outbox), returns_code=returns_code
            ),
        }


@router.post(
    "",
    status_code=201,
    dependencies=MAILING,
    responses=responses(errors.DuplicateAccount, errors.TooManyAttempts),
)
async def register_account(
    new: Registration, database: DatabaseDep, accounts: AccountsDep, languages: Languages = None
) -> AccountRead:
    """Register an e-mail address with a password. The service mails a link to confirm it."""
    return await accounts.register(database, new, languages)


@router.post(
    "/login",
    dependencies=[
        Limit("10/minute", except_form=("grant_type", "refresh_token")),  # option: rate_limit
        Depends(forbid_storing),
    ],
    responses=responses(
        errors.WrongCredentials,
        errors.AccountDisabled,
        errors.InvalidCode,
        errors.SessionEnded,
        errors.TooManyAttempts,
    ),
)
async def grant_tokens(
    form: Annotated[TokenForm, Form()],
    database: DatabaseDep,
    accounts: AccountsDep,
    client: ClientAddress,
    user_agent: UserAgent = None,
) -> Tokens:
    """Start a session with a password or with a code of a provider's log-in, or continue one.

    A refresh token continues a session.

    This is the token endpoint of OAuth 2.0 (RFC 6749, 3.2). Errors have the member `error`.
    """
    return await accounts.grant(database, form, client, user_agent)


@router.post("/logout", status_code=204)
async def log_out(sent: SessionToken, session: Session) -> None:
    """End the session of a refresh token. Its access tokens stay valid until they expire."""
    await log_out_session(session, sent.refresh_token)


@router.get("/me", dependencies=[Depends(forbid_storing)])
async def read_own_account(account_id: CurrentAccountId, connection: ReadConnection) -> AccountRead:
    """Return the account of the access token."""
    return await service.find(connection, account_id)


@router.get(
    "",
    dependencies=[Requires("accounts:read"), Depends(forbid_storing)],
    responses=responses(InvalidCursor),
)
async def list_accounts(
    session: ReadSession, query: Annotated[AccountQuery, Query()]
) -> AccountPage:
    """Return a page of accounts."""
    return await administration.find_page(session, query)
