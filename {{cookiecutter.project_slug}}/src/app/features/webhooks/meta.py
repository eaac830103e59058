"""Deliveries of Meta (WhatsApp, Messenger, Instagram) and the updates in them.

A delivery is a batch of up to 1,000 updates. It has no id, and Meta repeats a failed one for up to
seven days. Meta does not promise the same batch again, so each update is an event of its own.

https://developers.facebook.com/docs/graph-api/webhooks/getting-started
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, Field, ValidationError

LISTS = ("changes", "messaging")  # of updates; Messenger and Instagram use the second
# The ids of a contact, and those of a person in a message or status. An event has only the contact
# of its person: with all contacts of a batch, it would be as large as the batch.
CONTACT_IDS = ("wa_id", "user_id")
PERSON_IDS = (
    "from",
    "from_user_id",
    "recipient_id",
    "recipient_user_id",
    "recipient_participant_id",  # in a group
    "recipient_participant_user_id",
)


Objects = list[dict[str, Any]]


class Entry(BaseModel, extra="allow"):
    changes: Objects = []
    messaging: Objects = []


class Batch(BaseModel, extra="allow"):
    entry: list[Entry] = Field(min_length=1)


class WhatsAppValue(BaseModel):
    contacts: Objects = []
    messages: Objects = []
    statuses: Objects = []


def split(body: bytes) -> dict[str, bytes]:
    """Return the updates of a delivery by their ids, each as the body of a delivery of its own.

    A body that is no batch of updates is one event.
    """
    try:
        batch = Batch.model_validate_json(body).model_dump(exclude_unset=True)
    except ValidationError:
        return {digest(body): body}
    events = dict(_events(batch))
    return events if len(events) > 1 else dict.fromkeys(events, body)


def digest(content: bytes) -> str:
    """Return the id of signed content that has none."""
    return hashlib.sha256(content).hexdigest()


def _events(batch: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    for entry in batch["entry"]:
        common = {key: value for key, value in entry.items() if key not in LISTS}
        updates = [
            (own_id, {key: [single]})
            for key in LISTS
            for update in entry.get(key, [])
            for own_id, single in _split_update(update)
        ]
        for own_id, update in updates or [(None, entry)]:
            body = _dump({**batch, "entry": [common | update]})
            # A digest: a message id contains a phone number in base64, and ids are logged.
            yield digest(_dump([entry.get("id"), own_id]) if own_id else body), body


def _split_update(update: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Return each message or status alone, with the part that identifies it."""
    try:
        value = WhatsAppValue.model_validate(update.get("value"))
    except ValidationError:
        value = WhatsAppValue()
    parts = [("messages", message, message.get("id")) for message in value.messages]
    # A message of WhatsApp has several statuses, and each has the message's id.
    parts += [("statuses", status, status) for status in value.statuses]
    if not parts:
        message = update.get("message")
        return [(message.get("mid") if isinstance(message, dict) else None, update)]
    lists = ("messages", "statuses")
    common = {key: item for key, item in update["value"].items() if key not in lists}
    contacts = {id_: item for item in value.contacts for id_ in _ids(item, CONTACT_IDS)}
    alone = []
    for key, part, own_id in parts:
        own_contacts = [contacts[id_] for id_ in _ids(part, PERSON_IDS) if id_ in contacts][:1]
        single = common | {key: [part]} | ({"contacts": own_contacts} if own_contacts else {})
        alone.append((own_id, update | {"value": single}))
    return alone


def _ids(item: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [str(item[name]) for name in names if name in item]


def _dump(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
