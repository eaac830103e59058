"""The routes of accounts."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form, Response

from app.auth.dependencies import CurrentAccountId
from app.auth.settings import AuthSettings
from app.auth.tokens import AccessTokens
from app.features.accounts import service
from app.features.accounts.errors import DuplicateAccount, SessionEnded, WrongCredentials
from app.features.accounts.passwords import Passwords
from app.features.accounts.schemas import (
    AccountRead,
    LoginForm,
    Registration,
    SessionToken,
    Tokens,
)
from app.rate_limit.dependencies import Limit  # option: rate_limit
from app.web.dependencies import DatabaseDep, ReadConnection, Session, from_state
from app.web.problems import responses

TAG = {"name": "accounts", "description": "Registration, and sessions with access tokens."}
router = APIRouter(prefix="/accounts", tags=[TAG["name"]])


class Accounts:
    """The objects that the routes share."""

    def __init__(self, settings: AuthSettings, tokens: AccessTokens) -> None:
        self.passwords = Passwords()
        self.session_lifetime = timedelta(days=settings.session_days)
        self._tokens = tokens

    def respond(self, login: service.Login, response: Response) -> Tokens:
        """Return new tokens. No cache may store them (RFC 6749, 5.1)."""
        response.headers["Cache-Control"] = "no-store"
        return Tokens(
            access_token=self._tokens.issue(login.account_id),
            expires_in=int(self._tokens.lifetime.total_seconds()),
            refresh_token=login.refresh_token,
        )


AccountsDep = Annotated[Accounts, from_state("accounts")]


def create_state(settings: AuthSettings) -> dict[str, Any]:
    """Return the objects that the dependencies of accounts and access tokens need."""
    tokens = AccessTokens(settings)
    return {"access_tokens": tokens, "accounts": Accounts(settings, tokens)}


@router.post(
    "",
    status_code=201,
    dependencies=[Limit("10/minute")],  # option: rate_limit
    responses=responses(DuplicateAccount),
)
async def register_account(
    new: Registration, database: DatabaseDep, accounts: AccountsDep
) -> AccountRead:
    """Register an e-mail address with a password."""
    password = new.password.get_secret_value()
    return await service.register(database, accounts.passwords, new.email, password)


@router.post(
    "/login",
    dependencies=[Limit("10/minute")],  # option: rate_limit
    responses=responses(WrongCredentials),
)
async def log_in(
    form: Annotated[LoginForm, Form()],
    database: DatabaseDep,
    accounts: AccountsDep,
    response: Response,
) -> Tokens:
    """Start a session with an e-mail address and a password (RFC 6749, 4.3)."""
    login = await service.log_in(
        database,
        accounts.passwords,
        form.username,
        form.password.get_secret_value(),
        accounts.session_lifetime,
    )
    return accounts.respond(login, response)


@router.post("/refresh", responses=responses(SessionEnded))
async def refresh_tokens(
    sent: SessionToken, database: DatabaseDep, accounts: AccountsDep, response: Response
) -> Tokens:
    """Exchange a refresh token for new tokens. Sent a second time, it ends the session."""
    login = await service.refresh(database, sent.refresh_token, accounts.session_lifetime)
    return accounts.respond(login, response)


@router.post("/logout", status_code=204)
async def log_out(sent: SessionToken, session: Session) -> None:
    """End the session of a refresh token. Its access tokens stay valid until they expire."""
    await service.log_out(session, sent.refresh_token)


@router.get("/me")
async def read_own_account(account_id: CurrentAccountId, connection: ReadConnection) -> AccountRead:
    """Return the account of the access token."""
    return await service.find(connection, account_id)
