"""Connect the provider with the application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app.auth.oidc.dependencies import SCHEME_NAME
from app.auth.oidc.settings import OidcSettings
from app.auth.oidc.tokens import ProviderTokens
from app.auth.provider_keys import DISCOVERY, ProviderKeys
from app.http_client import open_http_client


@asynccontextmanager
async def open_provider(settings: OidcSettings) -> AsyncIterator[ProviderTokens]:
    """Yield the object that verifies tokens. No request is sent before the first token arrives."""
    async with open_http_client() as client:
        keys = ProviderKeys(settings.oidc_issuer, client)
        try:
            yield ProviderTokens(settings, keys)
        finally:
            await keys.close()


def document_provider(app: FastAPI, settings: OidcSettings) -> None:
    """Add the provider to the OpenAPI document, and let /docs log in with PKCE (RFC 7636)."""
    app.swagger_ui_init_oauth = {
        "clientId": settings.oidc_client_id or "",
        "scopes": "openid",
        "usePkceWithAuthorizationCodeGrant": True,
        # Auth0 needs it for a JWT. Others must ignore unknown parameters (RFC 6749, 3.1).
        "additionalQueryStringParams": {"audience": " ".join(settings.oidc_audience)},
    }
    describe = app.openapi
    scheme = {"type": "http", "scheme": "bearer"}  # without a provider, /docs takes any token
    if settings.oidc_issuer:
        url = settings.oidc_issuer.rstrip("/") + DISCOVERY
        scheme = {"type": "openIdConnect", "openIdConnectUrl": url}

    def openapi() -> dict[str, Any]:
        document = describe()
        schemes = document["components"].get("securitySchemes", {})
        if SCHEME_NAME in schemes:
            schemes[SCHEME_NAME] = scheme
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents replacing this method to extend the document
