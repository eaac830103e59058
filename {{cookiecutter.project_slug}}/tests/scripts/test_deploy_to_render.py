"""Deploying to Render, with a server that answers as its API does."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy_to_render import SERVICES, main

KEY = "of-this-test"


class Render(ThreadingHTTPServer):
    """Every deployment goes through these states, one for each look at it."""

    def __init__(self, *states: str, known: list[str] = SERVICES) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.states, self.known = states, known
        self.looks: dict[str, int] = {}
        self.deployed: list[tuple[str, str]] = []

    def answer(self, path: str, document: dict[str, str] | None) -> object:
        if path.startswith("/services?name="):
            # A name is searched for in part: there may be more than was asked for.
            names = [name for name in self.known if path.split("=")[1] in name]
            return [{"service": {"id": f"srv-{name}", "name": name}} for name in names]
        service = path.split("/")[2]
        if document:
            self.deployed.append((service, document["commitId"]))
            self.looks[service] = 0
        else:
            self.looks[service] += 1
        states = self.states
        return {"id": "dep-1", "status": states[min(self.looks[service], len(states) - 1)]}


class Answers(BaseHTTPRequestHandler):
    server: Render

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        document = json.loads(self.rfile.read(length)) if length else None
        is_known = self.headers["Authorization"] == f"Bearer {KEY}"
        self.send_response(200 if is_known else 401)
        self.end_headers()
        if is_known:
            self.wfile.write(json.dumps(self.server.answer(self.path, document)).encode())

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Deploy = Callable[..., str | None]


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Run the program against such a server; what it ended with."""

    def run(server: Render, key: str = KEY) -> str | None:
        monkeypatch.setenv("RENDER_API_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("RENDER_API_KEY", key)
        monkeypatch.setattr("deploy_to_render.PAUSE_SECONDS", 0.01)
        monkeypatch.setattr("sys.argv", ["deploy_to_render.py", "c0ffee"])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            main()
        except SystemExit as end:
            return str(end.code)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
        return None

    return run


def test_each_service_is_deployed_once_and_waited_for(deploy: Deploy) -> None:
    server = Render("build_in_progress", "live")
    assert deploy(server) is None
    assert server.deployed == [(f"srv-{name}", "c0ffee") for name in SERVICES]
    assert set(server.looks.values()) == {1}


@pytest.mark.parametrize("state", ["build_failed", "update_failed", "canceled", "unheard_of"])
def test_what_does_not_get_live_is_a_failure_and_ends_it(deploy: Deploy, state: str) -> None:
    server = Render("created", state)
    assert deploy(server) == f"not deployed: {SERVICES[0]}: {state}"
    assert len(server.deployed) == 1


def test_a_service_that_is_not_there_is_named(deploy: Deploy) -> None:
    server = Render("live", known=[])
    assert deploy(server) == f"not deployed: found 0 services with the name {SERVICES[0]}"


def test_a_key_that_was_pasted_with_the_end_of_its_line_is_right(deploy: Deploy) -> None:
    assert deploy(Render("live"), key=f"{KEY}\n") is None


def test_a_wrong_key_is_a_failure_that_does_not_show_it(deploy: Deploy) -> None:
    server = Render("live")
    end = deploy(server, key="a-wrong-one") or ""
    assert "401" in end
    assert "a-wrong-one" not in end
    assert server.deployed == []
