"""Signatures: HMAC-SHA256, in the form of Standard Webhooks and in that of Meta and GitHub.

Standard Webhooks (https://www.standardwebhooks.com) signs `id.timestamp.body`, and sends `v1,` and
the result in base64. There may be several signatures in one header, separated by spaces.

Meta and GitHub sign the body alone, and send `sha256=` and the result in hexadecimal.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable

TOLERANCE_SECONDS = 300  # of a timestamp, into the past and the future
# Without a full stop, which separates the signed parts. With one, the end of an id could be the
# start of a body.
ID = re.compile(r"[!-\-/-~]{1,200}")
TIMESTAMP = re.compile(r"[0-9]{1,12}")


def sign(key: bytes, delivery_id: str, timestamp: str, body: bytes) -> str:
    content = b".".join([delivery_id.encode(), timestamp.encode(), body])
    return f"v1,{base64.b64encode(hmac.digest(key, content, 'sha256')).decode()}"


def sign_body(key: bytes, body: bytes) -> str:
    """Return the value of `X-Hub-Signature-256`."""
    return f"sha256={hmac.digest(key, body, 'sha256').hex()}"


def digest(content: bytes) -> str:
    """Return the id of signed content that has none."""
    return hashlib.sha256(content).hexdigest()


def is_well_formed(delivery_id: str, timestamp: str) -> bool:
    return bool(ID.fullmatch(delivery_id) and TIMESTAMP.fullmatch(timestamp))


def is_fresh(timestamp: str, now: float) -> bool:
    """Return whether a well-formed timestamp is recent. An old one may be a replay."""
    return abs(now - int(timestamp)) <= TOLERANCE_SECONDS


def is_signed(
    keys: Iterable[bytes], delivery_id: str, timestamp: str, body: bytes, signatures: str
) -> bool:
    """Return whether one of the signatures was made with one of the keys.

    Args:
        keys: all valid keys. During a rotation there are two.
        delivery_id: the header `webhook-id`.
        timestamp: the header `webhook-timestamp`.
        body: the unchanged bytes.
        signatures: the header `webhook-signature`. Only version v1 matches.
    """
    expected = [sign(key, delivery_id, timestamp, body) for key in keys]
    return _has_common(expected, signatures.split())


def is_body_signed(keys: Iterable[bytes], body: bytes, signature: str) -> bool:
    """Return whether `X-Hub-Signature-256` was made with one of the keys."""
    return _has_common([sign_body(key, body) for key in keys], [signature])


def _has_common(expected: list[str], sent: list[str]) -> bool:
    # Every pair is compared in constant time, so the duration reveals no part of a signature.
    pairs = [(own.encode(), other.encode()) for own in expected for other in sent]
    return sum(hmac.compare_digest(own, other) for own, other in pairs) > 0
