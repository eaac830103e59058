"""Verify access tokens of the provider: JWTs as in RFC 9068, or as older providers issue them."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import jwt
import structlog

from app.auth.errors import InvalidToken
from app.auth.identity import Identity
from app.auth.oidc.settings import OidcSettings, parse_permissions
from app.auth.provider_keys import ALGORITHMS, ProviderKeys, UnknownKey

log = structlog.get_logger()

LEEWAY_SECONDS = 30  # by which the clocks of the provider and of this service may differ
TOKEN_TYPES = {"jwt", "at+jwt", "application/at+jwt"}  # no log-out tokens, no proofs (RFC 8725)
# Claims of ID tokens only (OpenID Connect Core 1.0, 2 and 3.3.2.11). Keycloak has `typ`.
OF_ID_TOKENS = ("nonce", "at_hash", "c_hash")


class ProviderTokens:
    """Verify the access tokens of one provider."""

    def __init__(self, settings: OidcSettings, keys: ProviderKeys) -> None:
        self._issuer = settings.oidc_issuer or ""
        self._namespace = uuid.uuid5(uuid.NAMESPACE_URL, self._issuer)
        self._audience = settings.oidc_audience
        self._claims = settings.oidc_permission_claims
        self._permissions = parse_permissions(settings.oidc_permissions)
        self._accepts_id_tokens = settings.oidc_accept_id_tokens
        self._keys = keys

    async def verify(self, token: str) -> Identity:
        """Return the sender of a token.

        Raises:
            InvalidToken: the token is not valid. The log has the reason.
            ProviderUnavailable: the key of the token is unknown, and cannot be fetched.
        """
        try:
            claims = await self._decode(token)
        except (jwt.PyJWTError, UnknownKey) as error:
            log.info("access token refused", reason=type(error).__name__)
            raise InvalidToken from error
        subject = claims["sub"]
        return Identity(
            account_id=uuid.uuid5(self._namespace, subject),
            subject=subject,
            permissions=self._find_permissions(claims),
        )

    async def _decode(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if str(header.get("alg")) not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError
        if str(header.get("typ", "JWT")).lower() not in TOKEN_TYPES:
            raise jwt.InvalidTokenError
        if not header.get("kid"):
            raise jwt.InvalidKeyError
        key = await self._keys.find(header["kid"])
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={"require": ["aud", "exp", "iss", "sub"]},
        )
        if not claims["sub"] or not (self._accepts_id_tokens or not _is_id_token(claims)):
            raise jwt.InvalidTokenError
        return claims

    def _find_permissions(self, claims: Mapping[str, Any]) -> frozenset[str]:
        names = {name for claim in self._claims for name in _names_in(claims, claim)}
        return frozenset(names).union(*(self._permissions.get(name, ()) for name in names))


def _is_id_token(claims: Mapping[str, Any]) -> bool:
    return claims.get("typ") == "ID" or any(name in claims for name in OF_ID_TOKENS)


def _names_in(claims: Mapping[str, Any], claim: str) -> Iterator[str]:
    """Yield the names in a claim: a text with spaces between them, or a list of texts."""
    value: Any = claims.get(claim)
    if value is None:  # names of claims may have dots: https://example.com/roles
        value = claims
        for part in claim.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        yield from value.split()
    elif isinstance(value, list):
        yield from (name for name in value if isinstance(name, str))
