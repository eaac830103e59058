"""Kinds of senders: their headers, their signatures with HMAC-SHA256, and the ids of their events.

Standard Webhooks (https://www.standardwebhooks.com) signs `id.timestamp.body`, and sends `v1,` and
the result in base64. There may be several signatures in one header, separated by spaces.

Meta and GitHub sign the body alone, and send `sha256=` and the result in hexadecimal.
"""

import base64
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, Field

from app.features.webhooks.meta import digest, split
from app.features.webhooks.settings import KindName

TOLERANCE_SECONDS = 300  # of a timestamp, into the past and the future
# Without a full stop, which separates the signed parts. With one, the end of an id could be the
# start of a body.
ID = re.compile(r"[!-\-/-~]{1,200}")
TIMESTAMP = re.compile(r"[0-9]{1,12}")
BODY_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
EVENT_TYPE = re.compile(r"[a-z_]{1,100}")


class SignatureHeaders(BaseModel):
    """The headers of every kind; each kind requires its own."""

    webhook_id: str = Field("", description="standard: the same when a delivery is repeated.")
    webhook_timestamp: str = Field("", description="standard: seconds since 1970.")
    webhook_signature: str = Field("", description="standard: v1, and base64; or several.")
    x_hub_signature_256: str = Field("", description="meta, github: sha256= and hexadecimal.")
    x_github_event: str = Field("", description="github: the type of the event.")


@dataclass(frozen=True)
class NewEvent:
    """An event to store, once for each id."""

    id: str
    body: bytes
    type: str | None = None


class Standard:
    success_status = 202

    def refusal(self, headers: SignatureHeaders, now: float) -> str | None:
        """Return the reason to refuse a delivery before its body is read, or None."""
        timestamp = headers.webhook_timestamp
        if not (ID.fullmatch(headers.webhook_id) and TIMESTAMP.fullmatch(timestamp)):
            return "Send webhook-id, webhook-timestamp and webhook-signature."
        if abs(now - int(timestamp)) > TOLERANCE_SECONDS:  # an old one may be a replay
            return "The timestamp differs from the server's clock by more than five minutes."
        return None

    def is_signed(self, keys: Iterable[bytes], headers: SignatureHeaders, body: bytes) -> bool:
        """Return whether one of the keys signed the body. During a rotation there are two."""
        content = f"{headers.webhook_id}.{headers.webhook_timestamp}.".encode() + body
        macs = (hmac.digest(key, content, "sha256") for key in keys)
        expected = [f"v1,{base64.b64encode(mac).decode()}" for mac in macs]
        return _has_common(expected, headers.webhook_signature.split())

    def events(self, headers: SignatureHeaders, body: bytes) -> list[NewEvent]:
        """Return the events of a signed delivery. Their ids must come from signed content."""
        return [NewEvent(headers.webhook_id, body)]


class BodySigned:
    """Meta and GitHub sign only the body."""

    success_status = 202

    def refusal(self, headers: SignatureHeaders, _now: float) -> str | None:
        if not BODY_SIGNATURE.fullmatch(headers.x_hub_signature_256):
            return "Send X-Hub-Signature-256: sha256= and 64 hexadecimal digits."
        return None

    def is_signed(self, keys: Iterable[bytes], headers: SignatureHeaders, body: bytes) -> bool:
        expected = [f"sha256={hmac.digest(key, body, 'sha256').hex()}" for key in keys]
        return _has_common(expected, [headers.x_hub_signature_256])


class Meta(BodySigned):
    success_status = 200  # Meta sends a delivery again after any other status

    def events(self, _headers: SignatureHeaders, body: bytes) -> list[NewEvent]:
        return [NewEvent(*update) for update in split(body).items()]


class GitHub(BodySigned):
    def refusal(self, headers: SignatureHeaders, now: float) -> str | None:
        if not EVENT_TYPE.fullmatch(headers.x_github_event):
            return "Send X-GitHub-Event and X-Hub-Signature-256."
        return super().refusal(headers, now)

    def events(self, headers: SignatureHeaders, body: bytes) -> list[NewEvent]:
        # X-GitHub-Delivery is not signed, and a replay could have another one.
        return [NewEvent(digest(body), body, headers.x_github_event)]


KINDS: dict[KindName, Standard | Meta | GitHub] = {
    "standard": Standard(),
    "meta": Meta(),
    "github": GitHub(),
}


def _has_common(expected: list[str], sent: list[str]) -> bool:
    # Every pair is compared in constant time, so the duration reveals no part of a signature.
    pairs = [(own.encode(), other.encode()) for own in expected for other in sent]
    return sum(hmac.compare_digest(own, other) for own, other in pairs) > 0
