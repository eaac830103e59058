"""The routes of log-ins with a provider, and of the links of an account."""

import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.auth.dependencies import CurrentAccountId
from app.auth.errors import ProviderUnavailable
from app.errors import ServiceError, Unavailable
from app.features.accounts import attempts, errors
from app.features.accounts.change_routes import (
    MAILING,
    ClientAddress,
    Languages,
    UserAgent,
    forbid_storing,
)
from app.features.accounts.providers.definition import LoginSecrets, ProviderResponse
from app.features.accounts.providers.links import find_links, unlink
from app.features.accounts.providers.logins import Client, ProviderLogins, expired
from app.features.accounts.schemas import ProviderLinkRead, ProviderRead, Tokens
from app.features.accounts.settings import AccountSettings
from app.web.dependencies import DatabaseDep, ReadConnection, Session, from_state
from app.web.problems import responses

router = APIRouter()
LoginsDep = Annotated[ProviderLogins, from_state("provider_logins")]
SettingsDep = Annotated[AccountSettings, from_state("settings")]

SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
COOKIE_SECONDS = 600
# Browsers accept the prefix only from this host, with Secure and without a domain (RFC 6265bis).
COOKIE, DEPLOYED_COOKIE = "login", "__Host-login"
PROBLEM = "urn:problem:"
NO_STORE = {"Cache-Control": "no-store"}
LOCATION = {"Location": {"description": "The next page.", "schema": {"type": "string"}}}
RETURNED = responses(
    errors.ProviderNotFound,
    errors.LoginRefused,
    errors.EmailNotVerified,
    errors.AccountDisabled,
    errors.OtherUserLinked,
    errors.LoginExpired,
    ProviderUnavailable,
)


async def read_browser_secret(request: Request, settings: SettingsDep) -> str | None:
    """Return the secret of the cookie, if the browser has one."""
    secret = request.cookies.get(_cookie_name(settings), "")
    return secret if SECRET.fullmatch(secret) else None


BrowserSecret = Annotated[str | None, Depends(read_browser_secret)]
# Together with their percent-encoding they fit into the head of a request.
State = Annotated[str | None, Query(max_length=100)]
Code = Annotated[str | None, Query(max_length=2048)]
Issuer = Annotated[str | None, Query(max_length=500)]


@router.get("/providers")
async def list_providers(logins: LoginsDep) -> Sequence[ProviderRead]:
    """Return the providers that log users in."""
    return [ProviderRead(name=name) for name in logins.names]


@router.get(
    "/providers/{provider}/login",
    status_code=303,
    response_class=RedirectResponse,
    dependencies=MAILING,
    responses={
        **responses(
            errors.ProviderNotFound,
            errors.CodeChallengeRequired,
            errors.TooManyAttempts,
            ProviderUnavailable,
        ),
        303: {"description": "The log-in page of the provider", "headers": LOCATION},
    },
)
async def start_provider_login(
    provider: str,
    request: Request,
    database: DatabaseDep,
    logins: LoginsDep,
    settings: SettingsDep,
    browser_secret: BrowserSecret,
    code_challenge: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{43}$")] = None,
    code_challenge_method: Literal["S256"] = "S256",
) -> Response:
    """Log in with a provider. Open this URL in the browser of the user.

    If LOGIN_REDIRECT_URL is set, `code_challenge` is required.
    """
    del code_challenge_method  # there is only one
    logins.check(provider)
    login = LoginSecrets.create(browser_secret)
    redirect_uri = _redirect_uri(request, provider)
    url = await logins.start(database, provider, login, redirect_uri, code_challenge)
    response = RedirectResponse(url, 303, NO_STORE)
    response.set_cookie(
        _cookie_name(settings),
        login.browser_secret,
        max_age=COOKIE_SECONDS,
        secure=settings.is_deployed,
        httponly=True,
        samesite="lax",  # not strict: the provider redirects from another site
    )
    return response


@router.get(
    "/providers/{provider}/callback",
    response_model=Tokens,
    responses={
        **RETURNED,
        303: {"description": "LOGIN_REDIRECT_URL, with a code or an error", "headers": LOCATION},
    },
)
async def finish_provider_login(
    provider: str,
    request: Request,
    response: Response,
    database: DatabaseDep,
    logins: LoginsDep,
    settings: SettingsDep,
    browser_secret: BrowserSecret,
    client_address: ClientAddress,
    user_agent: UserAgent = None,
    languages: Languages = None,
    state: State = None,
    code: Code = None,
    iss: Issuer = None,
) -> Tokens | Response:
    """Finish a log-in. The provider redirects the browser of the user to this URL.

    If LOGIN_REDIRECT_URL is set, the response redirects to it. Its fragment has the `code` for the
    grant `authorization_code`, or the `error`. Otherwise the response has the tokens.
    """
    logins.check(provider)
    sent = ProviderResponse(code, iss, _redirect_uri(request, provider)) if code else None
    client = Client(user_agent, languages)
    try:
        if browser_secret is None or state is None:
            raise expired()
        login = LoginSecrets(browser_secret, state)
        result = await logins.finish(database, provider, login, sent, client)
    except ServiceError as error:
        if settings.login_redirect_url is None or not error.type.startswith(PROBLEM):
            raise
        return _return(settings, {"error": error.type.removeprefix(PROBLEM)})
    with suppress(Unavailable):  # the log-in is committed, so the request succeeds
        async with database.read_connection() as connection:  # the start has counted it
            await attempts.refund(connection, attempts.CLIENT.of(client_address))
    if isinstance(result, Tokens):
        response.headers.update(NO_STORE)
        return result
    return _return(settings, {"code": result})


@router.get("/me/providers", dependencies=[Depends(forbid_storing)])
async def list_provider_links(
    account_id: CurrentAccountId, connection: ReadConnection
) -> Sequence[ProviderLinkRead]:
    """Return the links of the account to users of providers."""
    return await find_links(connection, account_id)


@router.delete(
    "/me/providers/{link_id}",
    status_code=204,
    responses=responses(errors.ProviderLinkNotFound, errors.OnlyWayToLogIn),
)
async def remove_provider_link(
    link_id: uuid.UUID, account_id: CurrentAccountId, session: Session, logins: LoginsDep
) -> None:
    """Remove a link. The user of the provider cannot log in to the account any more."""
    await unlink(session, account_id, link_id, logins.names)


def _cookie_name(settings: AccountSettings) -> str:
    return DEPLOYED_COOKIE if settings.is_deployed else COOKIE


def _redirect_uri(request: Request, provider: str) -> str:
    return str(request.url_for("finish_provider_login", provider=provider))


def _return(settings: AccountSettings, parameters: Mapping[str, Any]) -> Response:
    """Redirect to the frontend. Servers do not see the fragment, so no log has the code."""
    return RedirectResponse(f"{settings.login_redirect_url}#{urlencode(parameters)}", 303, NO_STORE)
