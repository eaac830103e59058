"""Signed requests as senders of webhooks make them, and the rows that the service stores.

The signatures have an implementation of their own, which can find a mistake in that of the service.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from typing import Any

from sqlalchemy import text

from app.db.session import Database
from sql import fetch


def standard_request(
    body: bytes, key: bytes, *, delivery_id: str = "msg_1", age_seconds: float = 0
) -> dict[str, Any]:
    """Return the arguments of a request that is signed as in Standard Webhooks."""
    timestamp = str(int(time.time() - age_seconds))
    content = f"{delivery_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    headers = {
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
        "Content-Type": "application/json",
    }
    return {"content": body, "headers": headers}


def hub_request(body: bytes, secret: str, **headers: str) -> dict[str, Any]:
    """Return the arguments of a request that is signed as by Meta and GitHub."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    signed = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signature}"}
    return {"content": body, "headers": signed | headers}


async def stored_rows(database: Database) -> list[dict[str, Any]]:
    found = await fetch(database, text("SELECT * FROM webhook_deliveries ORDER BY received_at, id"))
    return [dict(row) for row in found]


async def wait_until_attempted(database: Database, count: int = 1) -> list[dict[str, Any]]:
    """Wait until every delivery was attempted at least once, and return the rows."""
    async with asyncio.timeout(30):
        while True:
            found = await stored_rows(database)
            if len(found) == count and all(row["attempts"] for row in found):
                return found
            await asyncio.sleep(0.02)
