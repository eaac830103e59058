import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from httpx import AsyncClient

from app.auth.settings import parse_keys
from app.auth.tokens import ALGORITHM, AUDIENCE, AccessTokens, InvalidAccessToken
from app.service_info import SERVICE_NAME
from app.settings import Settings
from conftest import AUTH_KEYS, is_problem, settings_for

OLD, NEW = "old:" + "o1" * 20, "new:" + "n2" * 20
ACCOUNT_ID = uuid.UUID(int=7)


def access_tokens(keys: str | None = AUTH_KEYS) -> AccessTokens:
    return AccessTokens(settings_for("postgresql://db/app", auth_keys=keys))


def token(**changes: Any) -> str:
    """Return a token as the service issues it, with changes; None removes a claim or header."""
    headers = {"kid": next(iter(parse_keys(AUTH_KEYS)))} | changes.pop("headers", {})
    secret = changes.pop("secret", next(iter(parse_keys(AUTH_KEYS).values())))
    algorithm = changes.pop("algorithm", ALGORITHM)
    now = datetime.now(UTC)
    claims = {
        "iss": SERVICE_NAME,
        "aud": AUDIENCE,
        "sub": str(ACCOUNT_ID),
        "iat": now,
        "exp": now + timedelta(minutes=5),
    } | changes
    return jwt.encode(_without_none(claims), secret, algorithm, headers=_without_none(headers))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def test_issued_token_has_the_account_id_and_the_lifetime_of_the_settings(
    settings: Settings,
) -> None:
    tokens = AccessTokens(settings.model_copy(update={"access_token_minutes": 60}))
    issued = tokens.issue(ACCOUNT_ID)
    assert tokens.verify(issued) == ACCOUNT_ID
    claims = jwt.decode(issued, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60 * 60
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp"}


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - timedelta(minutes=1)},
        {"iat": NOW + timedelta(hours=1), "exp": NOW + timedelta(hours=2)},
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
    assert access_tokens().verify(token()) == ACCOUNT_ID
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
    assert during.verify(old) == ACCOUNT_ID
    new = during.issue(ACCOUNT_ID)
    assert jwt.get_unverified_header(new)["kid"] == "new"
    assert after.verify(new) == ACCOUNT_ID
    with pytest.raises(InvalidAccessToken):
        after.verify(old)
    with pytest.raises(InvalidAccessToken):
        before.verify(new)


def test_process_without_keys_generates_its_own() -> None:
    first, second = access_tokens(None), access_tokens(None)
    assert first.verify(first.issue(ACCOUNT_ID)) == ACCOUNT_ID
    with pytest.raises(InvalidAccessToken):
        second.verify(first.issue(ACCOUNT_ID))


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
    service: AsyncClient, authorization: str | None, challenge: str, name: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = await service.get("/accounts/me", headers=headers)
    assert is_problem(response, 401, name)
    assert response.headers["WWW-Authenticate"] == challenge


async def test_routes_that_require_a_token_document_401(service: AsyncClient) -> None:
    document = (await service.get("/openapi.json")).json()
    protected = {
        f"{method.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "security" in operation
    }
    assert "GET /accounts/me" in protected
    for operation in protected.values():
        assert list(operation["responses"]["401"]["content"]) == ["application/problem+json"]
