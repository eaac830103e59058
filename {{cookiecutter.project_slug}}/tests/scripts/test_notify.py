"""Messages to a chat."""

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


def test_the_chat_gets_the_text() -> None:
    with Receiver() as chat:
        result = notify(f"http://{chat.address}/hook?key=1")
    assert result.returncode == 0, result.stderr
    (message,) = chat.received
    assert message.path == "/hook?key=1"
    assert json.loads(message.body) == {"text": "it failed"}


def test_without_a_url_nothing_is_sent() -> None:
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
def test_a_message_that_nobody_takes_is_a_failure_that_does_not_show_the_url(url: str) -> None:
    result = notify(url)
    assert result.returncode == 1
    assert result.stderr.startswith("message not sent: ")
    assert "of-this-test" not in result.stderr
