"""The discovery document and the public keys of a provider, fetched when a token needs them.

PyJWT's own client blocks the event loop, and locks threads while it fetches.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import httpx
import structlog
from jwt import PyJWK, PyJWKSet, PyJWTError

from app.auth.errors import PAUSE_SECONDS, ProviderUnavailable

log = structlog.get_logger()

DISCOVERY = "/.well-known/openid-configuration"
# No symmetric algorithm: with HS256, a public key would be the secret.
ALGORITHMS = frozenset(
    f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)
) | {"EdDSA"}
MAX_AGE_SECONDS = 600  # then the keys are fetched again, so that removed ones are refused


class UnknownKey(Exception):
    """The provider has no key with this id."""


class ProviderKeys:
    """Find the public key of a token.

    Concurrent requests share one fetch. While the provider is down, the document and the keys from
    before its outage stay in use.

    Args:
        issuer: of the tokens, as the discovery document states it; None if there is no provider.
        client: sends the requests to the provider.
        accepts_final_slash: whether the document may state the issuer with a final slash.
        timeout_seconds: the limit of the discovery document and the keys together.
        clock: returns seconds, which never decrease.
    """

    def __init__(
        self,
        issuer: str | None,
        client: httpx.AsyncClient,
        *,
        accepts_final_slash: bool = False,
        timeout_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._issuers = {issuer, f"{issuer}/"} if accepts_final_slash else {issuer}
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._document: Mapping[str, Any] | None = None
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = -math.inf
        self._next_fetch_at = -math.inf
        self._fetch: asyncio.Task[None] | None = None
        self._is_down = False

    async def find(self, key_id: str) -> PyJWK:
        """Return the key with this id. An unknown id fetches the keys, at most once in a pause.

        Raises:
            UnknownKey: the provider has no such key.
            ProviderUnavailable: the key is unknown, and the last fetch failed.
        """
        if key := self._keys.get(key_id):
            if self._clock() >= self._fetched_at + MAX_AGE_SECONDS:
                self._start_fetch()  # this request does not wait for it
            return key
        if fetch := self._start_fetch():
            await asyncio.shield(fetch)  # a cancelled request leaves the fetch to the others
        if key := self._keys.get(key_id):
            return key
        if self._is_down:
            raise ProviderUnavailable
        raise UnknownKey

    async def find_document(self) -> Mapping[str, Any]:
        """Return the discovery document. The first call fetches it, and later ones if it is old.

        Raises:
            ProviderUnavailable: it was never fetched, and the last fetch failed.
        """
        if self._document is None or self._clock() >= self._fetched_at + MAX_AGE_SECONDS:
            fetch = self._start_fetch()
            if fetch and self._document is None:  # otherwise this request does not wait for it
                await asyncio.shield(fetch)
        if self._document is None:
            raise ProviderUnavailable
        return self._document

    async def close(self) -> None:
        """Cancel a running fetch."""
        if self._fetch is not None:
            self._fetch.cancel()
            with suppress(asyncio.CancelledError):
                await self._fetch

    def _start_fetch(self) -> asyncio.Task[None] | None:
        """Return the running fetch, or a new one; None during the pause after the last one."""
        if self._fetch is None or self._fetch.done():
            if self._clock() < self._next_fetch_at:
                return None
            self._fetch = asyncio.create_task(self._fetch_keys())
        return self._fetch

    async def _fetch_keys(self) -> None:
        self._is_down = True  # until the fetch has succeeded
        try:
            async with asyncio.timeout(self._timeout_seconds):
                self._document, self._keys = await self._load()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, PyJWTError) as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            log.warning("keys of the identity provider not fetched", reason=reason)
        else:
            self._fetched_at = self._clock()
            self._is_down = False
        finally:  # one fetch in a pause, however many tokens have unknown keys
            self._next_fetch_at = self._clock() + PAUSE_SECONDS

    async def _load(self) -> tuple[Mapping[str, Any], dict[str, PyJWK]]:
        """Fetch the discovery document and the keys that it names.

        Raises:
            httpx.HTTPError: a request failed, or the response is no success.
            ValueError: a document is malformed, or that of another provider.
            PyJWTError: none of the keys can be used.
        """
        if self._issuer is None:
            raise ValueError("no issuer is set")
        document = await self._get(self._issuer.rstrip("/") + DISCOVERY)
        if document.get("issuer") not in self._issuers:
            raise ValueError(f"the issuer is {document.get('issuer')!r}, not {self._issuer!r}")
        url = str(document.get("jwks_uri"))
        if self._issuer.startswith("https://") and not url.startswith("https://"):
            raise ValueError(f"jwks_uri is {url!r}, which is no https:// URL")
        keys = {
            key.key_id: key
            for key in PyJWKSet.from_dict(await self._get(url)).keys
            if key.key_id
            and key.public_key_use in {None, "sig"}
            and key.algorithm_name in ALGORITHMS
        }
        if not keys:
            raise ValueError("no key has an id and an asymmetric algorithm")
        return document, keys

    async def _get(self, url: str) -> dict[str, Any]:
        response = await self._client.get(url)
        response.raise_for_status()
        document = response.json()
        if not isinstance(document, dict):
            raise ValueError(f"{url} has no JSON object")  # noqa: TRY004 - the other errors of a document are ValueErrors
        return document
