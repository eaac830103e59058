"""scripts/notify.py with a chat server."""

import json
import os
import subprocess
import sys

import pytest

from processes import ROOT, Receiver


def notify(url: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NOTIFY_URL": url}
    command = [sys.executable, "scripts/notify.py", "it failed"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_notify_sends_the_text_to_the_chat() -> None:
    with Receiver() as chat:
        result = notify(f"http://{chat.address}/hook?key=1")
    assert result.returncode == 0, result.stderr
    (message,) = chat.received
    assert message.path == "/hook?key=1"
    assert json.loads(message.body) == {"text": "it failed"}


def test_notify_without_a_url_sends_nothing() -> None:
    assert notify("").returncode == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/of-this-test",
        "file:///of-this-test",
        "http://127.0.0.1:of-this-test/",
        "http://127.0.0.1:1/of-this-test at all",
    ],
)
def test_undelivered_message_fails_without_showing_the_url(url: str) -> None:
    result = notify(url)
    assert result.returncode == 1
    assert result.stderr.startswith("message not sent: ")
    assert "of-this-test" not in result.stderr
