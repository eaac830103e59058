"""Log-in with an OpenID Connect provider (OpenID Connect Core 1.0, 3.1)."""

from collections.abc import Mapping
from typing import Any

import jwt
from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from app.auth.provider_keys import ALGORITHMS, ProviderKeys, UnknownKey
from app.features.accounts.providers.definition import (
    LoginSecrets,
    ProviderResponse,
    ProviderUser,
)
from app.features.accounts.providers.oauth import OAuthClient

SCOPE = "openid email"
LEEWAY_SECONDS = 30  # by which the clocks of the provider and of this service may differ
MAX_SUBJECT_LENGTH = 255  # OpenID Connect Core 1.0, 2
# The default of RFC 8414 comes first: a provider that names no methods has this one.
AUTH_METHODS = ("client_secret_basic", "client_secret_post")


class OpenIdProvider:
    """A provider with a discovery document."""

    def __init__(self, client: OAuthClient, keys: ProviderKeys) -> None:
        self._client = client
        self._keys = keys

    async def authorization_url(self, login: LoginSecrets, redirect_uri: str) -> str:
        document = await self._keys.find_document()
        endpoint = self._endpoint(document, "authorization_endpoint")
        return self._client.authorization_url(endpoint, login, redirect_uri, nonce=login.nonce)

    async def fetch_user(self, login: LoginSecrets, response: ProviderResponse) -> ProviderUser:
        document = await self._keys.find_document()
        issuer = document["issuer"]
        is_named = document.get("authorization_response_iss_parameter_supported") is True
        self._client.check_issuer(issuer, response, required=is_named)
        supported = document.get("token_endpoint_auth_methods_supported") or AUTH_METHODS
        method = next((m for m in AUTH_METHODS if m in supported), AUTH_METHODS[0])
        endpoint = self._endpoint(document, "token_endpoint")
        token = await self._client.fetch_token(endpoint, method, login, response)
        claims = await self._verify(issuer, token, login.nonce)
        user = claims
        if "email_verified" not in claims:
            user = await self._user_info(document, token, claims)
        email = user.get("email")
        return ProviderUser(
            issuer=issuer,
            subject=claims["sub"],
            email=email if isinstance(email, str) else None,
            is_verified=user.get("email_verified") in (True, "true"),  # Amazon and Apple send texts
        )

    async def _verify(self, issuer: str, token: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """Return the claims of the ID token (OpenID Connect Core 1.0, 3.1.3.7).

        PyJWT checks the signature, issuer, audience and times, and Authlib the claims of OpenID
        Connect: nonce, azp and at_hash.

        Raises:
            LoginRefused: the ID token is missing or not valid.
            ProviderUnavailable: its key is unknown, and cannot be fetched.
        """
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise self._client.refused("no ID token")
        try:
            header = jwt.get_unverified_header(id_token)
            if str(header.get("alg")) not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError
            if str(header.get("typ", "JWT")).upper() != "JWT":  # no access and log-out tokens
                raise jwt.InvalidTokenError
            key = await self._keys.find(str(header.get("kid")))
            claims: dict[str, Any] = jwt.decode(
                id_token,
                key,
                algorithms=[key.algorithm_name],
                issuer=issuer,
                audience=self._client.client_id,
                leeway=LEEWAY_SECONDS,
                options={"require": ["aud", "exp", "iat", "iss", "sub"]},
            )
            expected = {
                "nonce": nonce,
                "client_id": self._client.client_id,
                "access_token": token["access_token"],
            }
            CodeIDToken(claims, header, params=expected).validate(leeway=LEEWAY_SECONDS)
        except (jwt.PyJWTError, JoseError, UnknownKey) as error:
            claim = getattr(error, "claim", "")
            reason = f"ID token: {type(error).__name__} {claim}".rstrip()
            raise self._client.refused(reason) from error
        if not 0 < len(claims["sub"]) <= MAX_SUBJECT_LENGTH:
            raise self._client.refused("ID token: sub")
        return claims

    async def _user_info(
        self, document: Mapping[str, Any], token: Mapping[str, Any], claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the claims of the UserInfo endpoint: some ID tokens have no address (5.4)."""
        if "userinfo_endpoint" not in document:
            return claims
        endpoint = self._endpoint(document, "userinfo_endpoint")
        found = await self._client.get(endpoint, token["access_token"])
        if not isinstance(found, dict) or found.get("sub") != claims["sub"]:  # 5.3.2
            raise self._client.refused("UserInfo: sub")
        return found

    def _endpoint(self, document: Mapping[str, Any], name: str) -> str:
        url = str(document.get(name))
        schemes = ("https://",) if document["issuer"].startswith("https://") else ("http",)
        if not url.startswith(schemes):
            raise self._client.unavailable(f"{name} is no https:// URL")
        return url
