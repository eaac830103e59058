"""Log-in with GitHub, which has OAuth 2.0 without OpenID Connect for users."""

from typing import Any

from app.features.accounts.providers.definition import (
    LoginSecrets,
    ProviderResponse,
    ProviderUser,
)
from app.features.accounts.providers.oauth import OAuthClient
from app.features.accounts.settings import GITHUB_URL

SCOPE = "user:email"
MEDIA_TYPE = "application/vnd.github+json"


class GitHubProvider:
    """GitHub, or a GitHub Enterprise Server.

    Args:
        client: an OAuth app, or the OAuth client of a GitHub App that may read addresses.
        url: without a final slash.
    """

    def __init__(self, client: OAuthClient, url: str) -> None:
        self._client = client
        self._issuer = f"{url}/login/oauth"
        self._api = "https://api.github.com" if url == GITHUB_URL else f"{url}/api/v3"

    async def authorization_url(self, login: LoginSecrets, redirect_uri: str) -> str:
        return self._client.authorization_url(f"{self._issuer}/authorize", login, redirect_uri)

    async def fetch_user(self, login: LoginSecrets, response: ProviderResponse) -> ProviderUser:
        self._client.check_issuer(self._issuer, response, required=False)
        token = await self._client.fetch_token(
            f"{self._issuer}/access_token", "client_secret_post", login, response
        )
        access_token: str = token["access_token"]
        user = await self._client.get(f"{self._api}/user", access_token, MEDIA_TYPE)
        user_id = user.get("id") if isinstance(user, dict) else None
        if not isinstance(user_id, int):
            raise self._client.unavailable("the user has no id")
        found = await self._client.get(f"{self._api}/user/emails", access_token, MEDIA_TYPE)
        email, is_verified = _primary(found)
        return ProviderUser(self._issuer, str(user_id), email, is_verified)


def _primary(found: Any) -> tuple[str | None, bool]:
    """Return the primary address of a user, and whether it is verified."""
    for entry in found if isinstance(found, list) else []:
        if isinstance(entry, dict) and entry.get("primary") is True:
            email = entry.get("email")
            return (email if isinstance(email, str) else None), entry.get("verified") is True
    return None, False
