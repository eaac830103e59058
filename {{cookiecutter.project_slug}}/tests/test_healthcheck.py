"""The health check of the container, against a server that answers this or that."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from processes import ROOT


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server on a free port, which it yields; it answers /health/ready only."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()
            self.wfile.write(b"its body")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def check(port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-IS", "scripts/healthcheck.py"]
    env = {"PORT": str(port)}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=20
    )


def test_it_succeeds_on_200() -> None:
    with answering(200) as port:
        assert check(port).returncode == 0


@pytest.mark.parametrize("status", [204, 302, 404, 500, 503])
def test_it_fails_on_anything_else_and_says_what_it_got(status: int) -> None:
    with answering(status) as port:
        result = check(port)
    assert result.returncode == 1
    assert result.stderr == f"{status}: {'' if status == 204 else 'its body'}\n"


def test_it_fails_if_nobody_answers() -> None:
    with answering(200) as port:
        pass
    result = check(port)
    assert result.returncode == 1
    assert result.stderr.startswith("no answer: ")
