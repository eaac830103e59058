"""Baseline: a constant response, without a framework."""

from typing import Any

BODY = b'{"status":"alive"}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"18")],
}


async def app(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send(START)
    await send({"type": "http.response.body", "body": BODY})
