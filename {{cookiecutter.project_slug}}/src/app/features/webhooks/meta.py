"""Deliveries of Meta (WhatsApp, Messenger, Instagram) and the updates in them.

A delivery is a batch of up to 1,000 updates. It has no id, and Meta repeats a failed one for up to
seven days. Meta does not promise the same batch again, so each update is an event of its own.

https://developers.facebook.com/docs/graph-api/webhooks/getting-started
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.features.webhooks.signatures import digest

LISTS = ("changes", "messaging")  # of updates; Messenger and Instagram use the second
# The ids of a contact, and those of a person in a message or status. An event has only the contact
# of its person: with all contacts of a batch, it would be as large as the batch.
CONTACT_IDS = ("wa_id", "user_id")
PERSON_IDS = (
    *("from", "from_user_id", "recipient_id", "recipient_user_id"),
    *("recipient_participant_id", "recipient_participant_user_id"),  # in a group
)


class Entry(BaseModel):
    model_config = ConfigDict(extra="allow")

    changes: list[dict[str, Any]] = []
    messaging: list[dict[str, Any]] = []


class Delivery(BaseModel):
    model_config = ConfigDict(extra="allow")

    entry: list[Entry] = Field(min_length=1)


class WhatsAppMessage(BaseModel):
    id: str


class WhatsAppValue(BaseModel):
    contacts: list[dict[str, Any]] = []
    messages: list[WhatsAppMessage] = []
    statuses: list[dict[str, Any]] = []


class MessengerMessage(BaseModel):
    mid: str


class Update(BaseModel):
    value: WhatsAppValue = WhatsAppValue()
    message: MessengerMessage | None = None


def split(body: bytes) -> dict[str, bytes]:
    """Return the updates of a delivery by their ids, each as the body of a delivery of its own.

    A body that is no batch of updates is one event.
    """
    try:
        delivery = Delivery.model_validate_json(body)
    except ValidationError:
        return {digest(body): body}
    events = dict(_events(delivery.model_dump(exclude_unset=True)))
    return events if len(events) > 1 else dict.fromkeys(events, body)


def _events(delivery: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    for entry in delivery["entry"]:
        common = {key: value for key, value in entry.items() if key not in LISTS}
        updates = [(key, update) for key in LISTS for update in entry.get(key, [])]
        for key, update in updates:
            for own_id, single in _split_update(update):
                body = _dump({**delivery, "entry": [{**common, key: [single]}]})
                # A digest: a message id contains a phone number in base64, and ids are logged.
                yield digest(_dump([entry.get("id"), own_id]) if own_id else body), body
        if not updates:
            body = _dump({**delivery, "entry": [entry]})
            yield digest(body), body


def _split_update(update: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each message or status alone, with the part that identifies it.

    A message of WhatsApp has several statuses, and each has the message's id.
    """
    try:
        known = Update.model_validate(update)
    except ValidationError:
        known = Update()
    if not (known.value.messages or known.value.statuses):
        yield known.message and known.message.mid, update
        return
    value = update["value"]
    common = {key: item for key, item in value.items() if key not in ("messages", "statuses")}
    contacts = {id_: item for item in value.get("contacts", []) for id_ in _ids(item, CONTACT_IDS)}
    parts = [("messages", message, message["id"]) for message in value.get("messages", [])]
    parts += [("statuses", status, status) for status in value.get("statuses", [])]
    for key, part, own_id in parts:
        own_contacts = [contacts[id_] for id_ in _ids(part, PERSON_IDS) if id_ in contacts][:1]
        single = common | {key: [part]} | ({"contacts": own_contacts} if own_contacts else {})
        yield own_id, update | {"value": single}


def _ids(item: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [str(item[name]) for name in names if name in item]


def _dump(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
