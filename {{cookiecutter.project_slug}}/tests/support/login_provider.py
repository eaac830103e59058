"""Providers that log users in, on a loopback port: OpenID Connect, and GitHub."""

import base64
import hashlib
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlencode

from oidc_provider import DISCOVERY, Answer, Provider, Request

CLIENT_ID, CLIENT_SECRET = "client-of-the-tests", "secret-of-the-tests"
USER = {"sub": "grace", "email": "grace@navy.example", "email_verified": True}


class AuthorizationServer(Provider):
    """A server with the grant of authorization codes (RFC 6749, 4.1) and PKCE (RFC 7636).

    The user logs in and consents at once.

    Attributes:
        sends_issuer: whether the response names the issuer (RFC 9207).
        user: the user that logs in; a test may change it.
        token_changes: members of the token response that a test replaces; None removes one.
        granted: the authorization request of each unused code.
        access_tokens: the user of each access token.
    """

    authorize, token = "/authorize", "/token"
    sends_issuer = True

    def __init__(self) -> None:
        super().__init__()
        self.user: dict[str, Any] = dict(USER)
        self.token_changes: dict[str, Any] = {}
        self.granted: dict[str, dict[str, str]] = {}
        self.access_tokens: dict[str, dict[str, Any]] = {}

    @property
    def response_issuer(self) -> str:
        return self.issuer

    def reset(self) -> None:
        """Forget the changes of a test."""
        self.user = dict(USER)
        self.token_changes.clear()
        self.answers.clear()
        self.requests.clear()

    def answer(self, request: Request) -> Answer:
        if request.path == self.authorize:
            return self._authorize(request.query)
        if request.path == self.token and request.method == "POST":
            return self._grant(request)
        return super().answer(request)

    def _authorize(self, query: dict[str, str]) -> Answer:
        wanted = {"client_id": CLIENT_ID, "response_type": "code", "code_challenge_method": "S256"}
        if any(query.get(name) != value for name, value in wanted.items()):
            return Answer(400, {"error": "invalid_request"})
        if len(query.get("code_challenge", "")) != 43:
            return Answer(400, {"error": "invalid_request"})
        code = secrets.token_urlsafe(16)
        self.granted[code] = query
        sent = {"code": code, "state": query["state"]}
        if self.sends_issuer:
            sent["iss"] = self.response_issuer
        return Answer(302, headers={"Location": f"{query['redirect_uri']}?{urlencode(sent)}"})

    def _grant(self, request: Request) -> Answer:
        form = request.form
        if not _is_client(request):
            return Answer(401, {"error": "invalid_client"})
        granted = self.granted.pop(form.get("code", ""), None)
        if (
            granted is None
            or form.get("redirect_uri") != granted["redirect_uri"]
            or challenge_of(form.get("code_verifier", "")) != granted["code_challenge"]
        ):
            return self.refuse_code()
        access_token = secrets.token_urlsafe(16)
        self.access_tokens[access_token] = self.user
        response = {"access_token": access_token, "token_type": "Bearer"}
        response |= self.add_to_token(granted, access_token) | self.token_changes
        return Answer(200, {k: v for k, v in response.items() if v is not None})

    def refuse_code(self) -> Answer:
        return Answer(400, {"error": "invalid_grant"})

    def add_to_token(self, granted: dict[str, str], access_token: str) -> dict[str, Any]:
        """Return further members of the token response."""
        del granted, access_token
        return {}

    def user_of(self, request: Request) -> dict[str, Any] | None:
        _, _, token = request.headers.get("Authorization", "").partition("Bearer ")
        return self.access_tokens.get(token)


class LoginProvider(AuthorizationServer):
    """An OpenID Connect provider.

    Attributes:
        claim_changes: arguments of issue() for the ID token.
        user_info: the response of the UserInfo endpoint, if ID tokens have no address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.claim_changes: dict[str, Any] = {}
        self.user_info: dict[str, Any] | None = None
        self.documents[DISCOVERY] |= {
            "authorization_endpoint": f"{self.issuer}{self.authorize}",
            "token_endpoint": f"{self.issuer}{self.token}",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "authorization_response_iss_parameter_supported": True,
        }

    def reset(self) -> None:
        super().reset()
        self.claim_changes.clear()
        self.user_info = None

    def answer(self, request: Request) -> Answer:
        if request.path == "/userinfo":
            is_known = self.user_of(request) is not None
            return Answer(200, self.user_info) if is_known else Answer(401)
        return super().answer(request)

    def add_to_token(self, granted: dict[str, str], access_token: str) -> dict[str, Any]:
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        claims: dict[str, Any] = {
            "aud": CLIENT_ID,
            "nonce": granted["nonce"],
            "at_hash": _base64(half),
            "exp": timedelta(minutes=5),
            "headers": {"typ": "JWT"},
        }
        user = {"sub": self.user["sub"]} if self.user_info else self.user
        return {"id_token": self.issue(**claims | user | self.claim_changes)}


class GitHubServer(AuthorizationServer):
    """GitHub as an Enterprise Server: the API is below /api/v3.

    Attributes:
        emails: the addresses of the user.
    """

    authorize, token = "/login/oauth/authorize", "/login/oauth/access_token"

    def __init__(self) -> None:
        super().__init__()
        self.emails: Any = []
        self.reset()

    @property
    def response_issuer(self) -> str:
        return f"{self.issuer}/login/oauth"

    def reset(self) -> None:
        super().reset()
        self.user = {"id": 1906, "login": "grace"}
        self.emails = [
            {"email": "hidden@noreply.example", "primary": False, "verified": True},
            {"email": "grace@navy.example", "primary": True, "verified": True},
        ]

    def answer(self, request: Request) -> Answer:
        if request.path.startswith("/api/v3/"):
            if (user := self.user_of(request)) is None:
                return Answer(401, {"message": "Bad credentials"})
            found = {"/api/v3/user": user, "/api/v3/user/emails": self.emails}
            return Answer(200, found[request.path])
        return super().answer(request)

    def refuse_code(self) -> Answer:
        return Answer(200, {"error": "bad_verification_code"})  # as GitHub does


def challenge_of(verifier: str) -> str:
    """Return the code challenge of a verifier."""
    return _base64(hashlib.sha256(verifier.encode()).digest())


def _is_client(request: Request) -> bool:
    """Return whether the request has the client secret, in a header or in the form."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        return unquote(base64.b64decode(credentials).decode()) == f"{CLIENT_ID}:{CLIENT_SECRET}"
    sent = request.form.get("client_id"), request.form.get("client_secret")
    return sent == (CLIENT_ID, CLIENT_SECRET)


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
