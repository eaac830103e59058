"""Create the providers of the settings."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from app.features.accounts.providers.definition import Provider
from app.features.accounts.settings import (
    DISCOVERY,
    GITHUB,
    GOOGLE,
    AccountSettings,
    LoginProvider,
)

GOOGLE_DISCOVERY_URL = f"https://accounts.google.com{DISCOVERY}"
TIMEOUT_SECONDS = 5.0  # of each step of a request
MAX_RESPONSE_BYTES = 1_000_000  # a discovery document, keys or a user; GitHub's largest has 100 kB


@asynccontextmanager
async def open_providers(settings: AccountSettings) -> AsyncIterator[Mapping[str, Provider]]:
    """Yield the providers by name. No request is sent before the first log-in."""
    if not settings.login_provider_names:
        yield {}
        return
    # Imported here, because a service without providers starts faster without Authlib.
    from app.auth.provider_keys import ProviderKeys
    from app.features.accounts.providers import github, openid
    from app.features.accounts.providers.oauth import OAuthClient
    from app.http_client import open_http_client

    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            open_http_client(timeout_seconds=TIMEOUT_SECONDS, max_response_bytes=MAX_RESPONSE_BYTES)
        )
        providers: dict[str, Provider] = {}
        for entry in _openid_providers(settings):
            secret = entry.client_secret.get_secret_value()
            client = OAuthClient(entry.name, entry.client_id, secret, openid.SCOPE, http)
            keys = ProviderKeys(entry.issuer, http, accepts_final_slash=True)
            stack.push_async_callback(keys.close)
            providers[entry.name] = openid.OpenIdProvider(client, keys)
        if settings.github_client_id and settings.github_client_secret:
            secret = settings.github_client_secret.get_secret_value()
            client = OAuthClient(GITHUB, settings.github_client_id, secret, github.SCOPE, http)
            providers[GITHUB] = github.GitHubProvider(client, settings.github_url)
        yield {name: providers[name] for name in settings.login_provider_names}


def _openid_providers(settings: AccountSettings) -> list[LoginProvider]:
    found = list(settings.login_providers)
    if settings.google_client_id and settings.google_client_secret:
        google = LoginProvider(
            name=GOOGLE,
            discovery_url=GOOGLE_DISCOVERY_URL,
            client_id=settings.google_client_id,
            client_secret=settings.google_client_secret,
        )
        found.insert(0, google)
    return found
