"""The routes."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Form, Request, Response

from app.auth.tokens import Access, Caller, install_access
from app.features.accounts import service
from app.features.accounts.passwords import Passwords
from app.features.accounts.schemas import Account, Login, Registration, SessionToken, Tokens
from app.rate_limit.middleware import Limit  # option: rate_limit
from app.settings import Settings
from app.web.dependencies import Reader
from app.web.problems import responses
from app.web.routing import include

TAG = {"name": "accounts", "description": "Registration, and sessions with access tokens."}
router = APIRouter(prefix="/accounts", tags=[TAG["name"]])


class Accounts:
    """What the routes work with."""

    def __init__(self, settings: Settings, access: Access) -> None:
        self.passwords = Passwords()
        self.session_lifetime = timedelta(days=settings.session_days)
        self._access = access

    def tokens(self, session: service.Session, response: Response) -> Tokens:
        """The answer to whoever is logged in now; nobody may keep a copy (RFC 6749, 5.1)."""
        response.headers["Cache-Control"] = "no-store"
        return Tokens(
            access_token=self._access.issue(session.account_id),
            expires_in=int(self._access.lifetime.total_seconds()),
            refresh_token=session.refresh_token,
        )


async def get_accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


AccountsDep = Annotated[Accounts, Depends(get_accounts)]


@router.post(
    "",
    status_code=201,
    dependencies=[Limit("10/minute")],  # option: rate_limit
    responses=responses(service.DuplicateAccount),
)
async def register_account(new: Registration, database: Reader, accounts: AccountsDep) -> Account:
    """Register an e-mail address with a password."""
    return await service.register(
        database, accounts.passwords, new.email, new.password.get_secret_value()
    )


@router.post(
    "/login",
    dependencies=[Limit("10/minute")],  # option: rate_limit
    responses=responses(service.WrongCredentials),
)
async def log_in(
    login: Annotated[Login, Form()],
    database: Reader,
    accounts: AccountsDep,
    response: Response,
) -> Tokens:
    """Start a session with an e-mail address and a password (RFC 6749, 4.3)."""
    session = await service.log_in(
        database,
        accounts.passwords,
        login.username,
        login.password.get_secret_value(),
        accounts.session_lifetime,
    )
    return accounts.tokens(session, response)


@router.post("/refresh", responses=responses(service.SessionEnded))
async def refresh_tokens(
    sent: SessionToken, database: Reader, accounts: AccountsDep, response: Response
) -> Tokens:
    """Exchange a refresh token for new tokens. Sent a second time, it ends the session."""
    session = await service.refresh(database, sent.refresh_token, accounts.session_lifetime)
    return accounts.tokens(session, response)


@router.post("/logout", status_code=204)
async def log_out(sent: SessionToken, database: Reader) -> None:
    """End the session of a refresh token; its access tokens stay valid until they expire."""
    await service.log_out(database, sent.refresh_token)


@router.get("/me")
async def read_own_account(caller: Caller, database: Reader) -> Account:
    """Return the account of the access token."""
    return await service.find(database, caller)


def install_accounts(app: FastAPI, settings: Settings) -> None:
    """Serve accounts, and let other routes ask who is calling."""
    app.state.accounts = Accounts(settings, install_access(app, settings))
    include(app, router)
