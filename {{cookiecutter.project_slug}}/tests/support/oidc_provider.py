"""A small OpenID Connect provider on a loopback port. Tests rotate its keys, and stop it."""

import functools
import json
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import get_default_algorithms

from app.settings import Settings

AUDIENCE = "https://api.test.example"
ALGORITHM = "ES256"
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/keys"


class SigningKey:
    """A private key, and the public part that the provider publishes."""

    def __init__(self, key_id: str, algorithm: str = ALGORITHM, private: Any = None) -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self.private = private or generate_private_key(SECP256R1())
        public = get_default_algorithms()[algorithm].to_jwk(self.private.public_key(), as_dict=True)
        self.public = {**public, "kid": key_id, "use": "sig", "alg": algorithm}


class Provider:
    """A provider with one signing key and any number of published ones.

    Attributes:
        documents: by path; a test may change them.
        requests: the number of requests by path.
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.documents: dict[str, Any] = {}
        self._port = 0
        self._numbers = 0
        self.start()
        self.issuer = f"http://127.0.0.1:{self._port}"
        self.documents[DISCOVERY] = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}{JWKS}"}
        self.rotate()

    def start(self) -> None:
        """Listen, after stop() on the same port."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests[self.path] += 1
                document = provider.documents.get(self.path)
                body = json.dumps(document).encode()
                self.send_response(404 if document is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        self._server.shutdown()
        self._server.server_close()

    def rotate(self, *, keep: bool = False) -> None:
        """Sign with a new key. With `keep`, the provider still publishes the other ones."""
        self._numbers += 1
        published = self.documents.get(JWKS, {"keys": []})["keys"] if keep else []
        self.sign_with(SigningKey(f"key-{self._numbers}"))
        self.documents[JWKS]["keys"] += published

    def sign_with(self, key: SigningKey) -> None:
        """Sign with this key, and publish it alone."""
        self.key = key
        self.documents[JWKS] = {"keys": [key.public]}

    def issue(self, **changes: Any) -> str:
        """Return a token as a provider issues it, with changes.

        A change of None removes a claim or header; a timedelta is a time relative to now.
        """
        headers = {"kid": self.key.key_id, "typ": "at+jwt"} | changes.pop("headers", {})
        key = changes.pop("key", self.key.private)
        algorithm = changes.pop("algorithm", self.key.algorithm)
        now = datetime.now(UTC)
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "grace",
            "iat": timedelta(),
            "exp": timedelta(minutes=5),
        } | changes
        claims = {k: now + v if isinstance(v, timedelta) else v for k, v in claims.items()}
        return jwt.encode(_without_none(claims), key, algorithm, headers=_without_none(headers))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@functools.cache
def shared_provider() -> Provider:
    """Return the provider of the tests that only need valid tokens. It ends with the process."""
    return Provider()


def provider_values(environment: object) -> dict[str, object]:
    """Return settings for the shared provider, or for one that no test reaches."""
    issuer = shared_provider().issuer if environment == "test" else "https://login.example.com"
    return {"oidc_issuer": issuer, "oidc_audience": AUDIENCE}


def issue_token(settings: Settings) -> tuple[uuid.UUID, str]:
    """Return the id of a new account of the shared provider, and its access token."""
    subject = str(uuid.uuid4())
    issuer = settings.oidc_issuer or ""
    account_id = uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, issuer), subject)
    return account_id, shared_provider().issue(sub=subject)


def issue_administrator_token(_settings: Settings) -> str:
    """Return an access token that may read every job."""
    return shared_provider().issue(sub=str(uuid.uuid4()), scope="jobs:read")
