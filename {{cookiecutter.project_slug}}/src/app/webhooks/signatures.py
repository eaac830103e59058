"""Signatures in the form of Standard Webhooks (https://www.standardwebhooks.com).

The sender signs `id.timestamp.body` with HMAC-SHA256, and sends `v1,` and the result in base64.
There may be several signatures in one header, separated by spaces.
"""

import base64
import hmac
import re
from collections.abc import Iterable

PREFIX = "whsec_"
TOLERANCE_SECONDS = 300  # of a timestamp, into the past and the future
# Without a full stop: it separates what is signed, and one in an id would let a body's first part
# pass for the id's end.
ID = re.compile(r"[!-\-/-~]{1,200}")
TIMESTAMP = re.compile(r"[0-9]{1,12}")


def parse_secrets(text: str) -> dict[str, list[bytes]]:
    """The keys of each source, from `shop:whsec_...,shop:whsec_...,bank:whsec_...`."""
    keys: dict[str, list[bytes]] = {}
    for item in filter(None, text.split(",")):
        source, _, secret = item.partition(":")
        digits = secret.removeprefix(PREFIX).rstrip("=")
        keys.setdefault(source, []).append(base64.b64decode(digits + "=" * (-len(digits) % 4)))
    return keys


def sign(key: bytes, delivery_id: str, timestamp: str, body: bytes) -> str:
    content = b".".join([delivery_id.encode(), timestamp.encode(), body])
    return f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}"


def is_well_formed(delivery_id: str, timestamp: str) -> bool:
    return bool(ID.fullmatch(delivery_id) and TIMESTAMP.fullmatch(timestamp))


def is_fresh(timestamp: str, now: float) -> bool:
    """Whether a well-formed timestamp is near enough; an old delivery may be somebody's replay."""
    return abs(now - int(timestamp)) <= TOLERANCE_SECONDS


def is_signed(
    keys: Iterable[bytes], delivery_id: str, timestamp: str, body: bytes, signatures: str
) -> bool:
    """Whether one of the signatures was made with one of the keys.

    Args:
        keys: all that are valid, of which there are two while they rotate.
        delivery_id: from `webhook-id`.
        timestamp: from `webhook-timestamp`.
        body: as it came, byte by byte.
        signatures: `webhook-signature`; those of other versions than v1 match nothing.
    """
    expected = [sign(key, delivery_id, timestamp, body).encode() for key in keys]
    sent = signatures.encode().split()
    # All are compared, each in constant time: how long it takes tells nothing.
    return sum(hmac.compare_digest(ours, theirs) for ours in expected for theirs in sent) > 0
