"""The client of OAuth 2.0 at a provider, with PKCE (RFC 7636)."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import structlog
from authlib.oauth2 import ClientAuth, OAuth2Client

from app.auth.errors import ProviderUnavailable
from app.features.accounts.errors import LoginRefused
from app.features.accounts.providers.definition import LoginSecrets, ProviderResponse

log = structlog.get_logger()

# RFC 6749, 5.2, and the name that GitHub has for it: expired, used before, or of another client.
INVALID_CODE = {"invalid_grant", "bad_verification_code"}
MAX_LOGGED_ERROR = 100
FORM = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}


class OAuthClient:
    """This service's registration at a provider.

    Args:
        name: of the provider.
        client_id: of the registration.
        client_secret: of the registration.
        scope: what the user allows the service to read.
        http: sends the requests.
    """

    def __init__(
        self, name: str, client_id: str, client_secret: str, scope: str, http: httpx.AsyncClient
    ) -> None:
        self.name = name
        self.client_id = client_id
        self._secret = client_secret
        self._scope = scope
        self._http = http
        self._client = OAuth2Client(
            None, client_id, client_secret, scope=scope, code_challenge_method="S256"
        )

    def authorization_url(
        self, endpoint: str, login: LoginSecrets, redirect_uri: str, **parameters: str
    ) -> str:
        """Return the URL at which the user logs in."""
        url: str
        url, _ = self._client.create_authorization_url(
            endpoint,
            state=login.state,
            code_verifier=login.code_verifier,
            redirect_uri=redirect_uri,
            **parameters,
        )
        return url

    async def fetch_token(
        self, endpoint: str, auth_method: str, login: LoginSecrets, response: ProviderResponse
    ) -> Mapping[str, Any]:
        """Exchange a code for an access token.

        Args:
            endpoint: the URL of the token endpoint.
            auth_method: client_secret_basic or client_secret_post.
            login: has the code verifier.
            response: has the code and the redirect URI.

        Returns:
            The answer of the provider, with an access_token.

        Raises:
            LoginRefused: the code is not valid.
            ProviderUnavailable: the provider does not answer, or its answer cannot be used.
        """
        form = {
            "grant_type": "authorization_code",
            "code": response.code,
            "redirect_uri": response.redirect_uri,
            "code_verifier": login.code_verifier,
        }
        client = ClientAuth(self.client_id, self._secret, auth_method)
        url, headers, body = client.prepare("POST", endpoint, dict(FORM), urlencode(form))
        request = self._http.build_request("POST", url, headers=headers, content=body)
        token = await self._send(request)
        error = token.get("error")
        if error in INVALID_CODE:
            log.info("log-in refused by the provider", provider=self.name, error=error)
            raise LoginRefused("The provider has not confirmed the log-in: begin it again.")
        if error or not isinstance(token.get("access_token"), str):
            raise self.unavailable(f"token endpoint: {error or 'no access_token'}")
        return token

    async def get(self, url: str, access_token: str, accept: str = "application/json") -> Any:
        """Return the JSON document at a URL that needs the access token of a user.

        Raises:
            ProviderUnavailable: the provider does not answer, or its answer cannot be used.
        """
        headers = {"Authorization": f"Bearer {access_token}", "Accept": accept}
        try:
            request = self._http.build_request("GET", url, headers=headers)
            response = await self._http.send(request)
            response.raise_for_status()
            return response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self.unavailable(f"{type(error).__name__}: {error}") from error

    async def _send(self, request: httpx.Request) -> Mapping[str, Any]:
        """Send a request to the token endpoint, and return its JSON object, also of an error."""
        try:
            response = await self._http.send(request)
            if response.is_server_error:
                response.raise_for_status()
            document = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self.unavailable(f"{type(error).__name__}: {error}") from error
        if not isinstance(document, dict):
            raise self.unavailable("the token endpoint has no JSON object")
        return document

    def unavailable(self, reason: str) -> ProviderUnavailable:
        """Log a failure of the provider, and return the error to raise.

        A wrong client secret is such a failure as well: the user cannot change it.
        """
        log.warning("log-in provider failed", provider=self.name, reason=reason[:MAX_LOGGED_ERROR])
        return ProviderUnavailable(f"The provider {self.name} is unavailable.")

    def refused(self, reason: str) -> LoginRefused:
        """Log why a log-in is not confirmed, and return the error to raise."""
        log.warning(
            "log-in with a provider refused", provider=self.name, reason=reason[:MAX_LOGGED_ERROR]
        )
        return LoginRefused("The provider has not confirmed the log-in: begin it again.")

    def check_issuer(self, issuer: str, response: ProviderResponse, *, required: bool) -> None:
        """Check that the response is one of this provider, and not of another (RFC 9207).

        Raises:
            LoginRefused: the response names another issuer, or none although it must.
        """
        if response.issuer != issuer and (required or response.issuer is not None):
            raise self.refused("the response has another issuer")
