"""Kinds of senders: the headers of their signatures, and the ids of their events."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, Field

from app.features.webhooks import meta, signatures
from app.features.webhooks.settings import KindName

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

    def why_refused(self, headers: SignatureHeaders, now: float) -> str | None:
        """Return the reason for a refusal before the body is read, or None."""
        if not signatures.is_well_formed(headers.webhook_id, headers.webhook_timestamp):
            return "Send webhook-id, webhook-timestamp and webhook-signature."
        if not signatures.is_fresh(headers.webhook_timestamp, now):
            return "The timestamp is over five minutes away from this clock."
        return None

    def is_signed(self, keys: Iterable[bytes], headers: SignatureHeaders, body: bytes) -> bool:
        """Return whether one of the keys signed the body."""
        delivery_id, timestamp = headers.webhook_id, headers.webhook_timestamp
        return signatures.is_signed(keys, delivery_id, timestamp, body, headers.webhook_signature)

    def events(self, headers: SignatureHeaders, body: bytes) -> list[NewEvent]:
        """Return the events of a signed delivery. Their ids must come from signed content."""
        return [NewEvent(headers.webhook_id, body)]


class BodySigned:
    """Meta and GitHub sign only the body."""

    success_status = 202

    def why_refused(self, headers: SignatureHeaders, _now: float) -> str | None:
        if not BODY_SIGNATURE.fullmatch(headers.x_hub_signature_256):
            return "Send X-Hub-Signature-256: sha256= and 64 hexadecimal digits."
        return None

    def is_signed(self, keys: Iterable[bytes], headers: SignatureHeaders, body: bytes) -> bool:
        return signatures.is_body_signed(keys, body, headers.x_hub_signature_256)


class Meta(BodySigned):
    success_status = 200  # Meta sends a delivery again after any other status

    def events(self, _headers: SignatureHeaders, body: bytes) -> list[NewEvent]:
        return [NewEvent(*update) for update in meta.split(body).items()]


class GitHub(BodySigned):
    def why_refused(self, headers: SignatureHeaders, now: float) -> str | None:
        if not EVENT_TYPE.fullmatch(headers.x_github_event):
            return "Send X-GitHub-Event and X-Hub-Signature-256."
        return super().why_refused(headers, now)

    def events(self, headers: SignatureHeaders, body: bytes) -> list[NewEvent]:
        # X-GitHub-Delivery is not signed, and a replay could have another one.
        return [NewEvent(signatures.digest(body), body, headers.x_github_event)]


KINDS: dict[KindName, Standard | Meta | GitHub] = {
    "standard": Standard(),
    "meta": Meta(),
    "github": GitHub(),
}
