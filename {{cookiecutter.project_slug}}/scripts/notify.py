"""Sends a line to a chat: Slack, Mattermost, Teams and others take {"text": ...}.

    python scripts/notify.py "what happened"

NOTIFY_URL says where to, and is a secret. Without it nothing is sent.
"""

import http.client
import json
import os
import sys
import urllib.request
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 10


def notify(url: str, text: str) -> None:
    """Send the text.

    Raises:
        OSError: nobody took it.
        ValueError: that is no http:// or https:// URL.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError("NOTIFY_URL is no http:// or https:// URL")
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - other schemes are refused above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 - other schemes are refused above
            pass
    except http.client.InvalidURL:
        raise ValueError("NOTIFY_URL is no URL") from None  # whose own words show a part of it


if __name__ == "__main__":
    if url := os.environ.get("NOTIFY_URL"):
        try:
            notify(url, " ".join(sys.argv[1:]))
        except (OSError, ValueError) as error:
            sys.exit(f"not notified: {error}")
