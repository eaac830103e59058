"""A small OpenID Connect provider on a loopback port. Tests rotate its keys, and stop it."""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import get_default_algorithms

AUDIENCE = "https://api.test.example"
ALGORITHM = "ES256"
DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/keys"


@dataclass(frozen=True)
class Request:
    """A request to a provider."""

    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """A JSON document, or bytes."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


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
        answers: functions by path that replace answer().
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.documents: dict[str, Any] = {}
        self.answers: dict[str, Callable[[Request], Answer]] = {}
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
                size = int(self.headers.get("Content-Length", 0))
                form = dict(parse_qsl(self.rfile.read(size).decode()))
                url = urlsplit(self.path)
                query = dict(parse_qsl(url.query))
                provider.requests[url.path] += 1
                request = Request(self.command, url.path, query, form, dict(self.headers))
                answer = provider.answers.get(url.path, provider.answer)(request)
                body = answer.body if isinstance(answer.body, bytes) else dumps(answer.body)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):  # the client may have given up
                    self.wfile.write(body)

            do_POST = do_GET  # noqa: N815 - the name that the base class calls

            def log_message(self, *_arguments: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: "Request") -> "Answer":
        """Return the answer to a request. Subclasses have more paths."""
        document = self.documents.get(request.path)
        return Answer(404 if document is None else 200, document)

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


def dumps(document: Any) -> bytes:
    return json.dumps(document).encode()


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
