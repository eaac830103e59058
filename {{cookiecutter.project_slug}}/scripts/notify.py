"""Send a message to a chat that accepts {"text": ...}: Slack, Mattermost, Teams and others.

    python scripts/notify.py "deployment failed"

NOTIFY_URL is the URL of the chat, and is a secret. Without it, no message is sent.
"""

import http.client
import json
import os
import sys
import urllib.request
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 10


def notify(url: str, text: str) -> None:
    """Send a text.

    Raises:
        OSError: the chat is unreachable, or did not accept the message.
        ValueError: the URL is not an http:// or https:// URL.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError("NOTIFY_URL is not an http:// or https:// URL")
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - other schemes are refused above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 - other schemes are refused above
            pass
    except http.client.InvalidURL:
        raise ValueError("NOTIFY_URL is not a valid URL") from None  # the error quotes parts of it


if __name__ == "__main__":
    if url := os.environ.get("NOTIFY_URL"):
        try:
            notify(url, " ".join(sys.argv[1:]))
        except (OSError, ValueError) as error:
            sys.exit(f"message not sent: {error}")
