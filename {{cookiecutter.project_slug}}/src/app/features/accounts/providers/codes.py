"""The codes that a log-in returns to the frontend, for one exchange.

A code has a challenge of the frontend that began the log-in (RFC 7636). So a stolen code is
useless, and an attacker cannot log a user in to the attacker's account with a code of its own.
"""

import hashlib
import hmac
import re
import uuid
from datetime import timedelta

from sqlalchemy import bindparam, delete, func
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database
from app.features.accounts import errors
from app.features.accounts.models import ProviderLogin
from app.features.accounts.providers.definition import challenge_of, new_secret

LIFETIME = timedelta(minutes=1)
VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636, 4.1

_USE = (
    delete(ProviderLogin)
    .where(ProviderLogin.digest == bindparam("used"), ProviderLogin.account_id.is_not(None))
    .returning(
        ProviderLogin.account_id,
        ProviderLogin.code_challenge,
        (ProviderLogin.expires_at > func.now()).label("is_live"),
    )
)


async def create_code(
    session: AsyncSession, provider: str, account_id: uuid.UUID, code_challenge: str
) -> str:
    """Return a code with which the frontend begins a session of an account."""
    code = new_secret()
    session.add(
        ProviderLogin(
            digest=_digest(code),
            provider=provider,
            code_challenge=code_challenge,
            account_id=account_id,
            expires_at=func.now() + LIFETIME,
        )
    )
    await session.flush()
    return code


async def use_code(database: Database, code: str, verifier: str) -> uuid.UUID:
    """Delete a code, and return its account.

    A wrong verifier uses the code up as well, so it cannot be guessed.

    Raises:
        InvalidCode: the code is unknown, expired or was used before, or has another challenge.
    """
    async with database.read_connection() as connection:
        found = (await connection.execute(_USE, {"used": _digest(code)})).one_or_none()
    is_right = (
        found is not None
        and found.is_live
        and VERIFIER.fullmatch(verifier) is not None
        and hmac.compare_digest(challenge_of(verifier), found.code_challenge)
    )
    if found is None or not is_right:
        raise errors.InvalidCode("Log in again.")
    account_id: uuid.UUID = found.account_id
    return account_id


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()
