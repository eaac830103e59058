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
from conftest import AUTH_KEYS, settings_for

OLD, NEW = "old:" + "o1" * 20, "new:" + "n2" * 20
ACCOUNT_ID = uuid.UUID(int=7)


def access_tokens(keys: str | None = AUTH_KEYS) -> AccessTokens:
    return AccessTokens(settings_for("postgresql://db/app", auth_keys=keys))


def token(**changes: Any) -> str:
    """A token as this service makes it, but for what is changed; None leaves a claim out."""
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
    return jwt.encode(_given(claims), secret, algorithm, headers=_given(headers))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def test_a_token_says_whose_it_is_and_is_good_as_long_as_the_settings_say(
    settings: Settings,
) -> None:
    ours = AccessTokens(settings.model_copy(update={"access_token_minutes": 60}))
    issued = ours.issue(ACCOUNT_ID)
    assert ours.verify(issued) == ACCOUNT_ID
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
        {"sub": "nobody"},
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
def test_whatever_is_not_right_about_a_token_it_is_refused(changes: dict[str, Any]) -> None:
    assert access_tokens().verify(token()) == ACCOUNT_ID
    with pytest.raises(InvalidAccessToken):
        access_tokens().verify(token(**changes))


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é", "..", "e30.e30.", "\x00"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidAccessToken):
        access_tokens().verify(text)


def test_a_token_that_was_tampered_with_is_refused() -> None:
    header, _, signature = token().split(".")
    _, claims, _ = token(sub=str(uuid.uuid4())).split(".")
    with pytest.raises(InvalidAccessToken):
        access_tokens().verify(f"{header}.{claims}.{signature}")


def test_keys_are_rotated_without_anybody_noticing() -> None:
    before, between, after = access_tokens(OLD), access_tokens(f"{NEW},{OLD}"), access_tokens(NEW)
    old = before.issue(ACCOUNT_ID)
    assert between.verify(old) == ACCOUNT_ID
    new = between.issue(ACCOUNT_ID)
    assert jwt.get_unverified_header(new)["kid"] == "new"
    assert after.verify(new) == ACCOUNT_ID
    with pytest.raises(InvalidAccessToken):
        after.verify(old)
    with pytest.raises(InvalidAccessToken):
        before.verify(new)


def test_without_keys_every_process_makes_up_its_own() -> None:
    one, other = access_tokens(None), access_tokens(None)
    assert one.verify(one.issue(ACCOUNT_ID)) == ACCOUNT_ID
    with pytest.raises(InvalidAccessToken):
        other.verify(one.issue(ACCOUNT_ID))


@pytest.mark.parametrize(
    ("authorization", "challenge", "name"),
    [
        (None, "Bearer", "token-required"),
        ("Basic YTpi", "Bearer", "token-required"),
        ("Bearer", 'Bearer error="invalid_token"', "invalid-token"),
        ("Bearer nonsense", 'Bearer error="invalid_token"', "invalid-token"),
    ],
)
async def test_without_a_good_token_the_answer_says_what_to_send(
    service: AsyncClient, authorization: str | None, challenge: str, name: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = await service.get("/accounts/me", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == challenge
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:problem:{name}"


async def test_routes_that_ask_for_a_token_say_so(service: AsyncClient) -> None:
    document = (await service.get("/openapi.json")).json()
    asking = {
        f"{method.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "security" in operation
    }
    assert "GET /accounts/me" in asking
    for operation in asking.values():
        assert list(operation["responses"]["401"]["content"]) == ["application/problem+json"]
