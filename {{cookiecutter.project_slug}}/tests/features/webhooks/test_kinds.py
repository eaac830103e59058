"""Secrets, signatures and events of each kind of source, without a running service."""

import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from app.features.webhooks.kinds import KINDS, NewEvent, SignatureHeaders
from app.features.webhooks.meta import split
from app.features.webhooks.settings import Source, parse_secrets
from conftest import settings_for

# The example in GitHub's documentation.
GITHUB_KEY = b"It's a Secret to Everybody"
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
STANDARD_SECRET = "whsec_" + "A" * 43
SECRETS = [hashlib.md5(text, usedforsecurity=False).hexdigest() for text in (b"1", b"2", b"3")]


def is_body_signed(keys: list[bytes], body: bytes, signature: str) -> bool:
    headers = SignatureHeaders(x_hub_signature_256=signature)
    return KINDS["github"].is_signed(keys, headers, body)


def test_signature_of_githubs_example_is_accepted() -> None:
    assert is_body_signed([GITHUB_KEY], b"Hello, World!", GITHUB_SIGNATURE)
    assert is_body_signed([b"other", GITHUB_KEY], b"Hello, World!", GITHUB_SIGNATURE)


@pytest.mark.parametrize(
    ("keys", "body", "signature"),
    [
        ([b"other"], b"Hello, World!", GITHUB_SIGNATURE),
        ([], b"Hello, World!", GITHUB_SIGNATURE),
        ([GITHUB_KEY], b"Hello, World", GITHUB_SIGNATURE),
        ([GITHUB_KEY], b"Hello, World!", GITHUB_SIGNATURE.upper()),
        ([GITHUB_KEY], b"Hello, World!", GITHUB_SIGNATURE.removeprefix("sha256=")),
        ([GITHUB_KEY], b"Hello, World!", "sha256=é"),
        ([GITHUB_KEY], b"Hello, World!", ""),
    ],
    ids=["other key", "no key", "other body", "capitals", "no prefix", "letters", "empty"],
)
def test_body_with_a_wrong_key_or_signature_is_refused(
    keys: list[bytes], body: bytes, signature: str
) -> None:
    assert not is_body_signed(keys, body, signature)


def test_sources_of_every_kind_are_parsed_with_two_secrets_each() -> None:
    text = (
        f"shop:{STANDARD_SECRET},whatsapp:meta:{SECRETS[0]},ci:github:{SECRETS[1]},"
        f"shop:standard:{STANDARD_SECRET},whatsapp:meta:{SECRETS[2]},ci:github:a:{SECRETS[2]},"
    )
    assert parse_secrets(text) == {
        "shop": Source("standard", [bytes(32)] * 2),
        "whatsapp": Source("meta", [SECRETS[0].encode(), SECRETS[2].encode()]),
        "ci": Source("github", [SECRETS[1].encode(), f"a:{SECRETS[2]}".encode()]),
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (SECRETS[0], "entry 2 is invalid"),
        (f"WhatsApp:meta:{SECRETS[0]}", "entry 2 is invalid"),
        (f"whatsapp:meta:{SECRETS[0]} ", "entry 2 is invalid"),
        ("", "entry 2 is invalid"),
        ("whatsapp:meta:", "entry 2: a secret of the kind standard"),
        (f"whatsapp:{SECRETS[0]}", "entry 2: a secret of the kind standard"),
        (f"whatsapp:Meta:{SECRETS[0]}", "entry 2: a secret of the kind standard"),
        (f"whatsapp:standard:{SECRETS[0]}", "entry 2: a secret of the kind standard"),
        (f"whatsapp:meta:{SECRETS[0][1:]}", "entry 2: a secret must have at least 32 characters"),
        ("ci:github:" + "change-me-" * 4, "entry 2: the secret is a placeholder"),
        ("whatsapp:meta:" + "0123" * 8, "entry 2: the secret is a placeholder"),
        (f"shop:meta:{SECRETS[0]}", "entry 2: an earlier entry of its source has another kind"),
    ],
)
def test_invalid_entry_is_refused_by_number_without_repeating_it(
    database_url: str, entry: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_for(database_url, webhook_secrets=f"shop:{STANDARD_SECRET},{entry},x:y")
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("webhook_secrets",)
    assert message in problem["msg"]
    assert SECRETS[0][1:] not in str(caught.value)
    assert STANDARD_SECRET not in str(caught.value)


def message(number: int, text: str = "Does it come in another color?") -> dict[str, Any]:
    """Return a message as in Meta's reference of the `messages` webhook."""
    return {
        "from": "16505551234",
        "id": f"wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0RgA{number}",
        "timestamp": "1749416383",
        "type": "text",
        "text": {"body": text},
    }


def status(number: int, name: str) -> dict[str, Any]:
    return {
        "id": message(number)["id"],
        "status": name,
        "timestamp": "1750030073",
        "recipient_id": "16505551234",
    }


def change(**updates: list[dict[str, Any]]) -> dict[str, Any]:
    metadata = {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"}
    contacts = [{"profile": {"name": "Sheena Nelson"}, "wa_id": "16505551234"}]
    value = {"messaging_product": "whatsapp", "metadata": metadata, "contacts": contacts}
    return {"field": "messages", "value": value | updates}


def delivery(*changes: dict[str, Any], **entry: object) -> bytes:
    """Return a delivery as Meta sends it, to the business 102290129340398 unless changed."""
    entries = [{"id": "102290129340398", "changes": list(changes)} | entry]
    return json.dumps({"object": "whatsapp_business_account", "entry": entries}).encode()


def test_delivery_with_one_update_is_stored_unchanged() -> None:
    body = delivery(change(messages=[message(1, "Größe?")]))
    assert b"\\u00f6" in body, "escaped, as Meta signs it"
    ((event_id, stored),) = split(body).items()
    assert stored == body
    assert len(event_id) == 64
    assert not set(event_id) - set("0123456789abcdef")


def test_update_has_the_same_id_in_every_delivery() -> None:
    first = change(messages=[message(1)])
    (event_id,) = split(delivery(first))
    spaced = json.dumps(json.loads(delivery(first)), indent=1, sort_keys=True).encode()
    later = change(messages=[message(1)], contacts=[{"profile": {"name": "Sheena N."}}])
    assert list(split(spaced)) == [event_id]
    assert list(split(delivery(first, time=1749416390))) == [event_id]
    assert list(split(delivery(later))) == [event_id]
    batch = split(delivery(change(messages=[message(2)]), first))
    assert len(batch) == 2
    assert json.loads(batch[event_id]) == json.loads(delivery(first))


def test_messages_and_statuses_of_one_change_are_separate_events() -> None:
    contacts: list[dict[str, Any]] = [
        {"wa_id": "1", "profile": {"name": "A"}},
        {"user_id": "US.2"},
    ]
    messages = [message(number) for number in (1, 2, 3)]
    messages[0]["from"] = "1"
    messages[1]["from_user_id"] = "US.2"
    statuses = [status(4, "read") | {"recipient_user_id": "US.2"}]
    events = split(delivery(change(messages=messages, statuses=statuses, contacts=contacts)))
    alone = [
        change(messages=[messages[0]], contacts=[contacts[0]]),
        change(messages=[messages[1]], contacts=[contacts[1]]),
        change(messages=[messages[2]], contacts=contacts),
        change(statuses=statuses, contacts=[contacts[1]]),
    ]
    assert len(events) == 4
    for single in alone:
        (event_id,) = split(delivery(single))
        assert json.loads(events[event_id]) == json.loads(delivery(single))


def test_large_batch_is_split_without_repeating_shared_data() -> None:
    contacts = [{"wa_id": str(n), "profile": {"name": "Sheena Nelson"}} for n in range(1000)]
    messages = [message(n) | {"from": str(n)} for n in range(1000)]
    body = delivery(change(messages=messages, contacts=contacts))
    events = split(body)
    assert len(events) == 1000
    assert sum(map(len, events.values())) < 3 * len(body)


def test_updates_of_the_same_message_are_separate_events() -> None:
    updates = [change(messages=[message(1)])]
    updates += [change(statuses=[status(1, name)]) for name in ("sent", "delivered", "read")]
    events = split(delivery(*updates))
    assert len(events) == 4
    (alone,) = split(delivery(updates[2]))
    assert json.loads(events[alone]) == json.loads(delivery(updates[2]))


def test_messages_to_two_businesses_are_separate_events() -> None:
    both = [split(delivery(change(messages=[message(1)]), id=number)) for number in ("1", "2")]
    assert both[0].keys().isdisjoint(both[1])


def test_messenger_message_is_identified_by_its_own_id() -> None:
    sent = {
        "sender": {"id": "1"}, "recipient": {"id": "2"}, "timestamp": 1458692752478,
        "message": {"mid": "mid.1457764197618:41d102a3e1ae206a38", "text": "hello, world!"},
    }  # fmt: skip
    read = {"sender": {"id": "1"}, "read": {"watermark": 1458668856253}}
    entry = {"id": "2", "time": 1458692752478, "messaging": [sent, read]}
    events = split(json.dumps({"object": "page", "entry": [entry]}).encode())
    assert len(events) == 2
    again = {"id": "2", "time": 1458692760000, "messaging": [sent]}
    (event_id,) = split(json.dumps({"object": "page", "entry": [again]}).encode())
    assert json.loads(events[event_id])["entry"] == [entry | {"messaging": [sent]}]


def test_updates_without_ids_are_identified_by_their_whole_content() -> None:
    photo = {"field": "photos", "value": {"verb": "update", "object_id": "10211885744794461"}}
    name = {"field": "name", "value": "Sheena"}
    events = split(delivery(photo, name, time=1))
    assert len(events) == 2
    assert events.keys() == {*split(delivery(photo, time=1)), *split(delivery(name, time=1))}
    assert events.keys().isdisjoint(split(delivery(photo, time=2)))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b'"entry"', b"{}", b'{"entry": []}', b'{"entry": [1]}', b"\xff"),
        b'{"entry": [{"changes": {"field": "messages"}}]}',
        b'{"entry": [{"changes": [1]}]}',
        b'{"entry": ' + b"[" * 10_000,
        b'{"entry": [{"id": 12345678901234567890123, "changed_fields": ["photos"]}]}',
        b'{"entry": [{"changes": [{"value": {"messages": [{"id": null}]}}]}]}',
    ],
)
def test_unknown_body_is_one_unchanged_event(body: bytes) -> None:
    ((event_id, stored),) = split(body).items()
    assert stored == body
    assert list(split(body)) == [event_id]
    assert event_id not in split(body + b" {}")


def test_github_event_is_identified_by_its_body() -> None:
    headers = SignatureHeaders(x_github_event="push")
    (event,) = KINDS["github"].events(headers, b"{}")
    assert event == NewEvent(hashlib.sha256(b"{}").hexdigest(), b"{}", "push")


def test_every_kind_is_accepted_by_the_setting() -> None:
    for kind in KINDS:
        text = STANDARD_SECRET if kind == "standard" else SECRETS[0]
        assert parse_secrets(f"source:{kind}:{text}")["source"].kind == kind
