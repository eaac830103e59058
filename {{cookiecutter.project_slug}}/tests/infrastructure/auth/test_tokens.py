import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from fastapi import FastAPI

from app.auth.dependencies import CurrentAccountId
from app.auth.settings import parse_keys
from app.auth.tokens import ALGORITHM, AUDIENCE, AccessTokens, InvalidAccessToken
from app.service_info import SERVICE_NAME
from app.settings import Settings
from conftest import AUTH_KEYS, is_problem, running, settings_for
from small_app import create_small_app

OLD, NEW = "old:" + "o1" * 20, "new:" + "n2" * 20
ACCOUNT_ID = uuid.UUID(int=7)


def access_tokens(keys: str | None = AUTH_KEYS) -> AccessTokens:
    return AccessTokens(settings_for("postgresql://db/app", auth_keys=keys))


def token(**changes: Any) -> str:
    """Return a token as the service issues it, with changes.

    A change of None removes a claim or header; a timedelta is a time relative to now.
    """
    headers = {"kid": next(iter(parse_keys(AUTH_KEYS)))} | changes.pop("headers", {})
    secret = changes.pop("secret", next(iter(parse_keys(AUTH_KEYS).values())))
    algorithm = changes.pop("algorithm", ALGORITHM)
    now = datetime.now(UTC)
    claims = {
        "iss": SERVICE_NAME,
        "aud": AUDIENCE,
        "sub": str(ACCOUNT_ID),
        "iat": timedelta(),
        "exp": timedelta(minutes=5),
    } | changes
    claims = {k: now + v if isinstance(v, timedelta) else v for k, v in claims.items()}
    return jwt.encode(_without_none(claims), secret, algorithm, headers=_without_none(headers))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def test_issued_token_has_the_account_id_and_the_lifetime_of_the_settings(
    settings: Settings,
) -> None:
    tokens = AccessTokens(settings.model_copy(update={"access_token_minutes": 60}))
    issued = tokens.issue(ACCOUNT_ID)
    assert tokens.verify(issued).account_id == ACCOUNT_ID
    claims = jwt.decode(issued, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60 * 60
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp", "roles"}


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": timedelta(minutes=-1)},
        {"iat": timedelta(hours=1), "exp": timedelta(hours=2)},
        {"iss": "another-service"},
        {"aud": "mail"},
        {"sub": "no-uuid"},
        {"sub": None},
        {"exp": None},
        {"iat": None},
        {"iss": None},
        {"aud": None},
        {"headers": {"kid": "unknown"}},
        {"headers": {"kid": None}},
        {"secret": "s" * 40},
        {"algorithm": "none", "secret": None},
        {"algorithm": "HS512", "secret": AUTH_KEYS * 2},
    ],
)
def test_token_with_an_invalid_claim_header_or_key_is_refused(changes: dict[str, Any]) -> None:
    assert access_tokens().verify(token()).account_id == ACCOUNT_ID
    with pytest.raises(InvalidAccessToken):
        access_tokens().verify(token(**changes))


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é", "..", "e30.e30.", "\x00"])
def test_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidAccessToken):
        access_tokens().verify(text)


def test_token_with_changed_claims_is_refused() -> None:
    header, _, signature = token().split(".")
    _, claims, _ = token(sub=str(uuid.uuid4())).split(".")
    with pytest.raises(InvalidAccessToken):
        access_tokens().verify(f"{header}.{claims}.{signature}")


def test_tokens_are_accepted_during_a_key_rotation() -> None:
    before, during, after = access_tokens(OLD), access_tokens(f"{NEW},{OLD}"), access_tokens(NEW)
    old = before.issue(ACCOUNT_ID)
    assert during.verify(old).account_id == ACCOUNT_ID
    new = during.issue(ACCOUNT_ID)
    assert jwt.get_unverified_header(new)["kid"] == "new"
    assert after.verify(new).account_id == ACCOUNT_ID
    with pytest.raises(InvalidAccessToken):
        after.verify(old)
    with pytest.raises(InvalidAccessToken):
        before.verify(new)


def test_process_without_keys_generates_its_own() -> None:
    first, second = access_tokens(None), access_tokens(None)
    assert first.verify(first.issue(ACCOUNT_ID)).account_id == ACCOUNT_ID
    with pytest.raises(InvalidAccessToken):
        second.verify(first.issue(ACCOUNT_ID))


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    app = create_small_app(settings, access_tokens=AccessTokens(settings))

    @app.get("/_test/account")
    async def show_account(account_id: CurrentAccountId) -> uuid.UUID:
        return account_id

    return app


async def test_request_with_a_valid_token_has_its_account_id(app: FastAPI) -> None:
    async with running(app) as client:
        headers = {"Authorization": f"Bearer {token()}"}
        response = await client.get("/_test/account", headers=headers)
    assert (response.status_code, response.json()) == (200, str(ACCOUNT_ID))


@pytest.mark.parametrize(
    ("authorization", "challenge", "name"),
    [
        (None, "Bearer", "token-required"),
        ("Basic YTpi", "Bearer", "token-required"),
        ("Bearer", 'Bearer error="invalid_token"', "invalid-token"),
        ("Bearer nonsense", 'Bearer error="invalid_token"', "invalid-token"),
    ],
)
async def test_request_without_a_valid_token_returns_401_with_a_challenge(
    app: FastAPI, authorization: str | None, challenge: str, name: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    async with running(app) as client:
        response = await client.get("/_test/account", headers=headers)
    assert is_problem(response, 401, name)
    assert response.headers["WWW-Authenticate"] == challenge


def test_route_that_requires_a_token_documents_401(app: FastAPI) -> None:
    operation = app.openapi()["paths"]["/_test/account"]["get"]
    assert operation["security"]
    assert list(operation["responses"]["401"]["content"]) == ["application/problem+json"]
