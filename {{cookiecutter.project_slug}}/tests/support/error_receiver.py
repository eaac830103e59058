"""A receiver of error reports that speaks Sentry's protocol, for tests."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from processes import Receiver

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def dsn_of(address: str) -> str:
    return f"http://{KEY}@{address}/42"


def events(receiver: Receiver) -> list[dict[str, Any]]:
    """Return the reported events. A request with other contents fails the test."""
    found = []
    for request in receiver.received:
        assert request.path == "/api/42/envelope/"
        assert f"sentry_key={KEY}" in request.headers["X-Sentry-Auth"]
        _, *lines = request.body.splitlines()
        for header, payload in zip(lines[::2], lines[1::2], strict=True):
            assert json.loads(header)["type"] == "event"
            found.append(json.loads(payload))
    return found
