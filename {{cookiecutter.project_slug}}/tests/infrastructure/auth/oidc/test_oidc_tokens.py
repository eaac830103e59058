"""Access tokens of the provider: attacks, claims and permissions."""

import hashlib
import hmac
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.auth.errors import InvalidToken
from app.auth.oidc.provider import open_provider
from app.auth.oidc.settings import OidcSettings
from app.auth.oidc.tokens import ProviderTokens
from conftest import Lines
from oidc_provider import AUDIENCE, Provider, SigningKey
from provider_accounts import shared_provider

PROVIDER = shared_provider()
OTHER = SigningKey("other")
PUBLIC_KEY = PROVIDER.key.private.public_key().public_bytes(
    Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
)


def oidc_settings(**values: Any) -> OidcSettings:
    return OidcSettings(oidc_issuer=PROVIDER.issuer, oidc_audience=[AUDIENCE]).model_copy(
        update=values
    )


@pytest.fixture
async def tokens() -> AsyncIterator[ProviderTokens]:
    async with open_provider(oidc_settings()) as tokens:
        yield tokens


async def test_account_id_depends_on_issuer_and_subject_only(tokens: ProviderTokens) -> None:
    first = await tokens.verify(PROVIDER.issue(sub="grace", scope="a"))
    second = await tokens.verify(PROVIDER.issue(sub="grace", exp=timedelta(minutes=9)))
    assert first.account_id == second.account_id
    assert (first.subject, first.account_id.version) == ("grace", 5)
    assert (await tokens.verify(PROVIDER.issue(sub="ada"))).account_id != first.account_id
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, PROVIDER.issuer)
    assert first.account_id == uuid.uuid5(namespace, "grace")


ATTACKS: dict[str, dict[str, Any]] = {
    "expired": {"exp": timedelta(seconds=-60)},
    "not valid yet": {"nbf": timedelta(seconds=60)},
    "issued in the future": {"iat": timedelta(hours=1), "exp": timedelta(hours=2)},
    "other issuer": {"iss": "https://evil.example.com"},
    "issuer with a slash": {"iss": f"{PROVIDER.issuer}/"},
    "other audience": {"aud": "https://other.example.com"},
    "other audiences": {"aud": [f"{AUDIENCE}/", "https://other.example.com"]},
    "empty subject": {"sub": ""},
    "no subject": {"sub": None},
    "no expiry": {"exp": None},
    "no issuer": {"iss": None},
    "no audience": {"aud": None},
    "no key id": {"headers": {"kid": None}},
    "empty key id": {"headers": {"kid": ""}},
    "unknown key id": {"headers": {"kid": "unknown"}},
    "log-out token": {"headers": {"typ": "logout+jwt"}},
    "proof of possession": {"headers": {"typ": "dpop+jwt"}},
    "unknown critical header": {"headers": {"crit": ["x"]}},
    "forged": {"key": OTHER.private},
    "forged, with its own key": {"key": OTHER.private, "headers": {"jwk": OTHER.public}},
    "forged, with a URL of keys": {"key": OTHER.private, "headers": {"jku": "https://a.example"}},
    "no algorithm": {"key": None, "algorithm": "none"},
    "symmetric algorithm": {"key": "k" * 64, "algorithm": "HS512"},
    "ID token with a nonce": {"nonce": "n"},
    "ID token with an access token": {"at_hash": "h"},
    "ID token with a code": {"c_hash": "h"},
    "ID token of Keycloak": {"typ": "ID"},
}


@pytest.mark.parametrize("changes", ATTACKS.values(), ids=ATTACKS)
async def test_token_with_an_invalid_claim_header_or_key_is_refused(
    tokens: ProviderTokens, changes: dict[str, Any]
) -> None:
    assert await tokens.verify(PROVIDER.issue())
    with pytest.raises(InvalidToken):
        await tokens.verify(PROVIDER.issue(**changes))


def encode(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


ODD_HEADERS = [
    b"[]",
    b'{"alg": ["ES256"], "kid": "key-1"}',
    b'{"alg": "ES256", "kid": ["key-1"]}',
    b'{"alg": "ES256", "kid": "key-1", "typ": 1}',
]


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "a.b.c", "é", "..", "e30.e30.", "\x00"),
        *(f"{encode(header)}.e30." for header in ODD_HEADERS),
    ],
)
async def test_text_that_is_no_token_is_refused(tokens: ProviderTokens, text: str) -> None:
    with pytest.raises(InvalidToken):
        await tokens.verify(text)


async def test_public_key_as_the_secret_of_hs256_is_refused(tokens: ProviderTokens) -> None:
    header, claims, _ = PROVIDER.issue().split(".")
    header = encode(b'{"alg": "HS256", "typ": "at+jwt", "kid": "key-1"}')
    signature = hmac.new(PUBLIC_KEY, f"{header}.{claims}".encode(), hashlib.sha256).digest()
    with pytest.raises(InvalidToken):
        await tokens.verify(f"{header}.{claims}.{encode(signature)}")


async def test_token_with_changed_claims_is_refused(tokens: ProviderTokens) -> None:
    header, _, signature = PROVIDER.issue().split(".")
    _, claims, _ = PROVIDER.issue(sub="ada").split(".")
    with pytest.raises(InvalidToken):
        await tokens.verify(f"{header}.{claims}.{signature}")


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": timedelta(seconds=-10)},
        {"nbf": timedelta(seconds=10)},
        {"iat": timedelta(seconds=10)},
        {"iat": None},
        {"aud": [AUDIENCE, "https://other.example.com"]},
        {"headers": {"typ": "JWT"}},
        {"headers": {"typ": None}},
        {"headers": {"typ": "application/at+jwt"}},
        {"typ": "Bearer"},
    ],
)
async def test_token_of_another_form_within_the_leeway_is_accepted(
    tokens: ProviderTokens, changes: dict[str, Any]
) -> None:
    assert (await tokens.verify(PROVIDER.issue(**changes))).subject == "grace"


KEYS = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "PS256": rsa.generate_private_key(65537, 2048),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize(
    ("algorithm", "published"),
    [*((algorithm, {}) for algorithm in KEYS), ("RS256", {"alg": None, "use": None})],
)
async def test_key_of_every_family_verifies_its_algorithm_only(
    algorithm: str, published: dict[str, None]
) -> None:
    provider = Provider()
    key = SigningKey("key", algorithm, KEYS[algorithm])
    key.public = {name: value for name, value in key.public.items() if name not in published}
    provider.sign_with(key)
    async with open_provider(oidc_settings(oidc_issuer=provider.issuer)) as tokens:
        assert (await tokens.verify(provider.issue())).subject == "grace"
        other = {"RS256": "PS256", "PS256": "RS512"}.get(algorithm)
        if other:
            with pytest.raises(InvalidToken):
                await tokens.verify(provider.issue(algorithm=other))
    provider.stop()


async def test_id_token_is_accepted_if_the_settings_say_so() -> None:
    async with open_provider(oidc_settings(oidc_accept_id_tokens=True)) as tokens:
        assert await tokens.verify(PROVIDER.issue(nonce="n", at_hash="h", headers={"typ": "JWT"}))


async def test_every_audience_of_the_settings_is_accepted() -> None:
    async with open_provider(oidc_settings(oidc_audience=["a", "b"])) as tokens:
        for audience in ("a", "b", ["x", "b"]):
            assert await tokens.verify(PROVIDER.issue(aud=audience))
        with pytest.raises(InvalidToken):
            await tokens.verify(PROVIDER.issue(aud="x"))


@pytest.mark.parametrize(
    ("settings", "claims", "permissions"),
    [
        ({}, {}, set()),
        ({}, {"scope": "openid orders:write"}, {"openid", "orders:write"}),
        ({}, {"scp": ["a", "b"], "roles": ["c"], "permissions": ["d"]}, {"a", "b", "c", "d"}),
        ({}, {"scope": 1, "scp": {"a": 1}, "roles": [1, None, "b"]}, {"b"}),
        ({}, {"realm_access": {"roles": ["admin"]}}, set()),
        (
            {"oidc_permission_claims": ["realm_access.roles"]},
            {"realm_access": {"roles": ["admin"]}, "scope": "a"},
            {"admin"},
        ),
        ({"oidc_permission_claims": ["realm_access.roles"]}, {"realm_access": ["a"]}, set()),
        (
            {"oidc_permission_claims": ["https://example.com/roles"]},
            {"https://example.com/roles": ["admin"]},
            {"admin"},
        ),
        (
            {"oidc_permissions": ["editor=orders:read orders:write", "admin=all"]},
            {"roles": ["editor"]},
            {"editor", "orders:read", "orders:write"},
        ),
    ],
)
async def test_permissions_are_scopes_roles_and_what_the_settings_give_them(
    settings: dict[str, Any], claims: dict[str, Any], permissions: set[str]
) -> None:
    async with open_provider(oidc_settings(**settings)) as tokens:
        identity = await tokens.verify(PROVIDER.issue(**claims))
    assert identity.permissions == permissions


async def test_reason_of_a_refusal_is_logged_without_the_token(
    tokens: ProviderTokens, lines: Lines
) -> None:
    token = PROVIDER.issue(aud="https://other.example.com")
    with pytest.raises(InvalidToken):
        await tokens.verify(token)
    (line,) = (line for line in lines() if line["message"] == "access token refused")
    assert line["reason"] == "InvalidAudienceError"
    assert token not in str(line)
