"""The routes that change, export and delete an account."""

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import Secret

from app.auth.dependencies import CurrentAccountId, CurrentIdentity
from app.errors import Unavailable
from app.features.accounts import attempts, errors, personal_data, sessions
from app.features.accounts.changes import Changes, verify_email
from app.features.accounts.schemas import (
    EmailAddress,
    EmailChange,
    LinkUse,
    PasswordChange,
    PasswordConfirmation,
    PasswordReset,
    SessionRead,
    Tokens,
)
from app.rate_limit.dependencies import Limit  # option: rate_limit
from app.web.client import client_of
from app.web.dependencies import DatabaseDep, ReadConnection, Session, from_state
from app.web.problems import responses

router = APIRouter()
ChangesDep = Annotated[Changes, from_state("account_changes")]
Languages = Annotated[str | None, Header(alias="Accept-Language")]
UserAgent = Annotated[str | None, Header()]


async def read_client(request: Request) -> str:
    """Return the address of the client."""
    return client_of(request.scope)


ClientAddress = Annotated[str, Depends(read_client)]


async def limit_guesses(database: DatabaseDep, address: ClientAddress) -> AsyncIterator[None]:
    """Count an attempt of the client, unless the route succeeds.

    Raises:
        TooManyAttempts: the client has no attempt left.
    """
    client = attempts.CLIENT.of(address)
    async with database.read_connection() as connection:
        await attempts.count(connection, client)
    yield
    with suppress(Unavailable):  # the change is committed, so the request succeeds
        async with database.read_connection() as connection:
            await attempts.refund(connection, client)


async def limit_mails(database: DatabaseDep, address: ClientAddress) -> None:
    """Count an attempt of the client, also if the route succeeds.

    Raises:
        TooManyAttempts: the client has no attempt left.
    """
    async with database.read_connection() as connection:
        await attempts.count(connection, attempts.CLIENT.of(address))


GUESSED: list[Any] = [Depends(limit_guesses, scope="function")]  # routes with secrets
GUESSED += [Limit("10/minute")]  # option: rate_limit
MAILING: list[Any] = [Depends(limit_mails)]
MAILING += [Limit("10/minute")]  # option: rate_limit


def text_of(password: Secret[str] | None) -> str | None:
    return password.get_secret_value() if password else None


async def forbid_storing(response: Response) -> None:
    """Forbid caches to store a response with tokens or personal data (RFC 6749, 5.1)."""
    response.headers["Cache-Control"] = "no-store"


@router.post(
    "/verification",
    status_code=202,
    dependencies=MAILING,
    responses=responses(errors.TooManyAttempts),
)
async def send_verification(
    account_id: CurrentAccountId, session: Session, changes: ChangesDep, languages: Languages = None
) -> None:
    """Mail a link that confirms the address of the account, unless it is confirmed."""
    await changes.send_verification(session, account_id, languages)


@router.post(
    "/verification/confirm",
    status_code=204,
    dependencies=GUESSED,
    responses=responses(errors.InvalidLink, errors.TooManyAttempts),
)
async def confirm_email(sent: LinkUse, session: Session) -> None:
    """Confirm an address, with the token of the link `verify-email`."""
    await verify_email(session, sent.token)


@router.post(
    "/password/forgotten",
    status_code=202,
    dependencies=MAILING,
    responses=responses(errors.TooManyAttempts),
)
async def send_password_reset(
    sent: EmailAddress, session: Session, changes: ChangesDep, languages: Languages = None
) -> None:
    """Mail a link for a new password. The response is the same for every address."""
    await changes.send_password_reset(session, sent.email, languages)


@router.post(
    "/password/reset",
    status_code=204,
    dependencies=GUESSED,
    responses=responses(errors.InvalidLink, errors.TooManyAttempts),
)
async def reset_password(sent: PasswordReset, database: DatabaseDep, changes: ChangesDep) -> None:
    """Set a new password, with the token of the link `reset-password`. All sessions end."""
    await changes.reset_password(database, sent.token, sent.password.get_secret_value())


@router.post(
    "/me/password",
    dependencies=[*GUESSED, Depends(forbid_storing)],
    responses=responses(errors.WrongPassword, errors.TooManyAttempts),
)
async def change_password(
    sent: PasswordChange,
    owner: CurrentIdentity,
    database: DatabaseDep,
    changes: ChangesDep,
    user_agent: UserAgent = None,
) -> Tokens:
    """Change the password. All sessions end, and the response has the tokens of a new one."""
    return await changes.change_password(
        database,
        owner,
        text_of(sent.current_password),
        sent.new_password.get_secret_value(),
        user_agent,
    )


@router.post(
    "/me/email",
    status_code=202,
    dependencies=MAILING,
    responses=responses(errors.WrongPassword, errors.TooManyAttempts),
)
async def send_email_change(
    sent: EmailChange,
    owner: CurrentIdentity,
    database: DatabaseDep,
    changes: ChangesDep,
    languages: Languages = None,
) -> None:
    """Mail a link to a new address. The account keeps the old one until the link is used."""
    password = text_of(sent.current_password)
    await changes.send_email_change(database, owner, password, sent.email, languages)


@router.post(
    "/email/confirm",
    status_code=204,
    dependencies=GUESSED,
    responses=responses(errors.InvalidLink, errors.DuplicateAccount, errors.TooManyAttempts),
)
async def change_email(
    sent: LinkUse, session: Session, changes: ChangesDep, languages: Languages = None
) -> None:
    """Use a new address, with the token of the link `change-email`. The old one gets a notice."""
    await changes.change_email(session, sent.token, languages)


@router.get("/me/sessions", dependencies=[Depends(forbid_storing)])
async def list_sessions(
    account_id: CurrentAccountId, connection: ReadConnection
) -> Sequence[SessionRead]:
    """Return the sessions of the account, the last used one first."""
    return await sessions.find_sessions(connection, account_id)


@router.delete(
    "/me/sessions/{session_id}", status_code=204, responses=responses(errors.SessionNotFound)
)
async def revoke_session(
    session_id: uuid.UUID, account_id: CurrentAccountId, session: Session
) -> None:
    """End a session. Its access tokens stay valid until they expire."""
    await sessions.revoke(session, account_id, session_id)


@router.get("/me/export", dependencies=[Depends(forbid_storing)])
async def export_personal_data(
    account_id: CurrentAccountId, connection: ReadConnection
) -> dict[str, Any]:
    """Return the account and all data that belong to it."""
    return await personal_data.export_all(connection, account_id)


@router.post(
    "/me/deletion",
    status_code=204,
    dependencies=GUESSED,
    responses=responses(errors.WrongPassword, errors.TooManyAttempts),
)
async def delete_account(
    sent: PasswordConfirmation, owner: CurrentIdentity, database: DatabaseDep, changes: ChangesDep
) -> None:
    """Delete the account and all data that belong to it."""
    await changes.delete_account(database, owner, text_of(sent.current_password))
