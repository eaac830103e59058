"""scripts/kubernetes_credential.py with a server in place of GitHub's."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from kubernetes_credential import main

SERVER = "https://cluster.example.com"
BEARER = "of-this-job"


def token_with(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"head.{payload}.signature"


@contextmanager
def identity_provider(response: object) -> Iterator[str]:
    """Run a server that issues a token to the job of this test, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.headers["Authorization"] == f"Bearer {BEARER}"
            query = parse_qs(urlsplit(self.path).query)
            is_known = is_known and query == {"api-version": ["2.0"], "audience": [SERVER]}
            self.send_response(200 if is_known else 403)
            self.end_headers()
            self.wfile.write(json.dumps(response).encode())

        def log_message(self, *_: object) -> None:
            """Do not log."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token?api-version=2.0"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def request_credential(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs the program with a response of the server."""

    def run(response: object, bearer: str = BEARER) -> None:
        monkeypatch.setenv("KUBERNETES_SERVER", SERVER)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", bearer)
        with identity_provider(response) as url:
            monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", url)
            main()

    return run


def test_credential_has_the_token_and_its_expiry(
    request_credential: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    token = token_with({"exp": 1_893_456_000, "sub": "repo:acme/api:environment:production"})
    request_credential({"value": token})
    assert json.loads(capsys.readouterr().out) == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"},
    }


def test_refused_request_does_not_show_the_bearer_token(
    request_credential: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"no identity token: .*403") as error:
        request_credential({}, bearer="of-another-job")
    assert "of-another-job" not in str(error.value) + capsys.readouterr().out


@pytest.mark.parametrize("response", [{}, {"value": "not-a-token"}, {"value": "a.b.c"}, []])
def test_invalid_response_is_reported(
    request_credential: Callable[..., None], response: object
) -> None:
    with pytest.raises(SystemExit, match="no identity token: "):
        request_credential(response)


def test_job_without_permission_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL", raising=False)
    with pytest.raises(SystemExit, match="the job has no permission `id-token: write`"):
        main()
