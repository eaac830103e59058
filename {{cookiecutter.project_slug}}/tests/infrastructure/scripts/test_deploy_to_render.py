"""scripts/deploy_to_render.py with a server that implements Render's API."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy_to_render import SERVICES, main

KEY = "of-this-test"


class Render(ThreadingHTTPServer):
    """A server that moves a deployment to its next state with each status request."""

    def __init__(self, *states: str, known: list[str] = SERVICES) -> None:
        super().__init__(("127.0.0.1", 0), RequestHandler)
        self.states, self.known = states, known
        self.status_requests: dict[str, int] = {}
        self.deployed: list[tuple[str, str]] = []

    def respond(self, path: str, document: dict[str, str] | None) -> object:
        if path.startswith("/services?name="):
            # Render returns every name that contains the text.
            names = [name for name in self.known if path.split("=")[1] in name]
            return [{"service": {"id": f"srv-{name}", "name": name}} for name in names]
        service = path.split("/")[2]
        if document:
            self.deployed.append((service, document["commitId"]))
            self.status_requests[service] = 0
        else:
            self.status_requests[service] += 1
        states = self.states
        return {
            "id": "dep-1",
            "status": states[min(self.status_requests[service], len(states) - 1)],
        }


class RequestHandler(BaseHTTPRequestHandler):
    server: Render

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        document = json.loads(self.rfile.read(length)) if length else None
        is_known = self.headers["Authorization"] == f"Bearer {KEY}"
        self.send_response(200 if is_known else 401)
        self.end_headers()
        if is_known:
            self.wfile.write(json.dumps(self.server.respond(self.path, document)).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Do not log."""


Deploy = Callable[..., str | None]


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Return a function that runs the program with a server, and returns its exit message."""

    def run(server: Render, key: str = KEY) -> str | None:
        monkeypatch.setenv("RENDER_API_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("RENDER_API_KEY", key)
        monkeypatch.setattr("deploy_to_render.PAUSE_SECONDS", 0.01)
        monkeypatch.setattr("sys.argv", ["deploy_to_render.py", "c0ffee"])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            main()
        except SystemExit as error:
            return str(error.code)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        return None

    return run


def test_each_service_is_deployed_once_and_awaited(deploy: Deploy) -> None:
    server = Render("build_in_progress", "live")
    assert deploy(server) is None
    assert server.deployed == [(f"srv-{name}", "c0ffee") for name in SERVICES]
    assert set(server.status_requests.values()) == {1}


@pytest.mark.parametrize("state", ["build_failed", "update_failed", "canceled", "unknown_state"])
def test_failed_deployment_ends_the_program(deploy: Deploy, state: str) -> None:
    server = Render("created", state)
    assert deploy(server) == f"not deployed: {SERVICES[0]}: {state}"
    assert len(server.deployed) == 1


def test_missing_service_is_named(deploy: Deploy) -> None:
    server = Render("live", known=[])
    assert deploy(server) == f"not deployed: found 0 services with the name {SERVICES[0]}"


def test_key_with_a_trailing_newline_is_accepted(deploy: Deploy) -> None:
    assert deploy(Render("live"), key=f"{KEY}\n") is None


def test_wrong_key_fails_without_showing_it(deploy: Deploy) -> None:
    server = Render("live")
    message = deploy(server, key="wrong-key") or ""
    assert "401" in message
    assert "wrong-key" not in message
    assert server.deployed == []
