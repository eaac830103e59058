"""The interface of a provider, and the values that it exchanges with a log-in."""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Protocol

SECRET_BYTES = 32  # 256 random bits cannot be guessed


@dataclass(frozen=True)
class LoginSecrets:
    """The secrets of one log-in.

    The database stores the digest alone. The other values derive from it and from the secret in the
    cookie, so only the browser that began the log-in can finish it.

    Attributes:
        browser_secret: of the cookie. Log-ins in several tabs share it.
        state: sent through the provider, and different for each log-in.
    """

    browser_secret: str
    state: str

    @classmethod
    def create(cls, browser_secret: str | None) -> "LoginSecrets":
        """Return the secrets of a new log-in, with those of a browser that has a cookie."""
        return cls(browser_secret or new_secret(), new_secret())

    @property
    def digest(self) -> bytes:
        return self._derive("digest")

    @property
    def nonce(self) -> str:
        return _text(self._derive("nonce"))

    @property
    def code_verifier(self) -> str:
        """The verifier of RFC 7636: 43 characters."""
        return _text(self._derive("code verifier"))

    def _derive(self, purpose: str) -> bytes:
        message = f"{purpose} {self.state}".encode()
        return hmac.digest(self.browser_secret.encode(), message, hashlib.sha256)


@dataclass(frozen=True)
class ProviderUser:
    """A user, as a provider describes it.

    Attributes:
        issuer: identifies the provider.
        subject: the user's id, unique at the issuer and never given to another user.
        email: an address of the user, if the provider has one.
        is_verified: whether the provider has verified the address.
    """

    issuer: str
    subject: str
    email: str | None
    is_verified: bool


@dataclass(frozen=True)
class ProviderResponse:
    """The parameters that the provider adds to the redirect URI (RFC 6749, 4.1.2 and RFC 9207)."""

    code: str
    issuer: str | None
    redirect_uri: str


class Provider(Protocol):
    """A provider that logs users in."""

    async def authorization_url(self, login: LoginSecrets, redirect_uri: str) -> str:
        """Return the URL at which the user logs in.

        Raises:
            ProviderUnavailable: the provider does not answer, or its answer cannot be used.
        """

    async def fetch_user(self, login: LoginSecrets, response: ProviderResponse) -> ProviderUser:
        """Exchange the code of the provider, and return the user.

        Raises:
            LoginRefused: the code or a token of the provider is not valid.
            ProviderUnavailable: the provider does not answer, or its answer cannot be used.
        """


def new_secret() -> str:
    """Return 43 random characters."""
    return _text(secrets.token_bytes(SECRET_BYTES))


def challenge_of(verifier: str) -> str:
    """Return the code challenge of a verifier, by the method S256 (RFC 7636, 4.2)."""
    return _text(hashlib.sha256(verifier.encode()).digest())


def _text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
