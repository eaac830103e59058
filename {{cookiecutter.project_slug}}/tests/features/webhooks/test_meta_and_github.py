"""Deliveries of Meta and GitHub."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database, open_database
from app.features.webhooks import (
    background,
    routes,  # option: worker
    service,
)
from app.features.webhooks.kinds import NewEvent
from app.features.webhooks.process import Event
from app.main import create_app
from app.settings import Settings
from app.web.dependencies import open_session
from conftest import is_problem, running, settings_for
from sql import fetch
from webhook_senders import hub_request, standard_request, stored_rows, wait_until_attempted

META, NEW_META, GITHUB, NEW_GITHUB = (
    hashlib.md5(name, usedforsecurity=False).hexdigest() for name in (b"1", b"2", b"3", b"4")
)
STANDARD = bytes(range(32))
VERIFY_TOKEN = "of-these-tests-alone"
PING = b'{"zen":"Keep it logically awesome.","hook_id":109948940}'


def settings_with_sources(database_url: str, **values: object) -> Settings:
    entries = [
        f"whatsapp:meta:{NEW_META}", f"whatsapp:meta:{META}",
        f"ci:github:{GITHUB}", f"ci:github:{NEW_GITHUB}",
        f"shop:whsec_{base64.b64encode(STANDARD).decode()}",
    ]  # fmt: skip
    values = {"webhook_secrets": ",".join(entries), "webhook_verify_token": VERIFY_TOKEN} | values
    return settings_for(database_url, **values)


@pytest.fixture
async def client(
    database_url: str,
    clean_tables: None,  # noqa: ARG001 - used for its effect
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[AsyncClient]:
    """Yield a client of a service whose background processor does not start by itself."""
    in_process = background.open_background_processor  # option: worker
    monkeypatch.setattr(routes, "open_processor", in_process)  # option: worker
    monkeypatch.setattr(background, "START_SECONDS", 3600)
    async with running(create_app(settings_with_sources(database_url))) as client:
        yield client


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings) as database:
        yield database


@pytest.fixture
def processed(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Record the events that are processed; an event with `fail` in its body fails."""
    events: list[Event] = []

    async def process(event: Event, _session: AsyncSession) -> None:
        events.append(event)
        if b"fail" in event.body:
            raise RuntimeError("no")

    monkeypatch.setattr(service, "process", process)
    return events


def delivery(*numbers: int) -> bytes:
    """Return a batch of WhatsApp messages, as in Meta's reference of the `messages` webhook."""
    changes = [
        {
            "field": "messages",
            "value": {
                "messaging_product": "whatsapp",
                "metadata": {"display_phone_number": "15550783881", "phone_number_id": "1065403"},
                "contacts": [{"profile": {"name": "Sheena Nelson"}, "wa_id": "16505551234"}],
                "messages": [
                    {
                        "from": "16505551234",
                        "id": f"wamid.HBgLMTY1MDM4Nzk0MzkVAgASGBQzQTRBNjU5OUFFRTAzODEwMTQ0{number}",
                        "timestamp": "1749416383",
                        "type": "text",
                        "text": {"body": "Größe?"},
                    }
                ],
            },
        }
        for number in numbers
    ]
    entry = {"id": "102290129340398", "changes": changes}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def by_meta(body: bytes, secret: str = META) -> dict[str, Any]:
    return hub_request(body, secret)


def by_github(
    body: bytes = PING, secret: str = GITHUB, *, guid: str = "72d3162e", event: str = "ping"
) -> dict[str, Any]:
    return hub_request(body, secret, **{"X-GitHub-Delivery": guid, "X-GitHub-Event": event})


async def test_meta_delivery_returns_200_and_is_stored_and_processed(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    response = await client.post("/webhooks/whatsapp", **by_meta(delivery(1)))
    assert (response.status_code, response.json()) == (200, {"status": "stored"})
    (row,) = await wait_until_attempted(database, 1)
    assert (row["body"], row["error"]) == (delivery(1), None)
    assert processed == [Event("whatsapp", row["id"], row["received_at"], delivery(1), None)]


async def test_github_delivery_is_stored_with_its_type_and_processed(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    response = await client.post("/webhooks/ci", **by_github())
    assert (response.status_code, response.json()) == (202, {"status": "stored"})
    (row,) = await wait_until_attempted(database, 1)
    assert processed == [Event("ci", row["id"], row["received_at"], PING, "ping")]


async def test_meta_replay_is_acknowledged_and_not_processed_again(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    await client.post("/webhooks/whatsapp", **by_meta(delivery(1)))
    await wait_until_attempted(database, 1)
    again = await client.post("/webhooks/whatsapp", **by_meta(delivery(1), NEW_META))
    assert (again.status_code, again.json()) == (200, {"status": "repeated"})
    assert not await service.process_next(database)
    assert len(processed) == 1


async def test_github_replay_with_other_unsigned_headers_is_not_processed_again(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    await client.post("/webhooks/ci", **by_github())
    await wait_until_attempted(database, 1)
    for replay in (by_github(), by_github(guid="00000000", event="push")):
        again = await client.post("/webhooks/ci", **replay)
        assert (again.status_code, again.json()) == (202, {"status": "repeated"})
    assert not await service.process_next(database)
    assert [event.type for event in processed] == ["ping"]


async def test_updates_of_overlapping_batches_are_processed_once_each(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    statuses = []
    for numbers in ((1,), (1, 2), (3, 2, 1), (2, 3), (1, 1)):
        response = await client.post("/webhooks/whatsapp", **by_meta(delivery(*numbers)))
        assert response.status_code == 200
        statuses.append(response.json()["status"])
    assert statuses == ["stored", "stored", "stored", "repeated", "repeated"]
    await wait_until_attempted(database, 3)
    bodies = {canonical(event.body) for event in processed}
    assert len(processed) == 3
    assert bodies == {canonical(delivery(number)) for number in (1, 2, 3)}


def canonical(body: bytes) -> str:
    return json.dumps(json.loads(body), sort_keys=True)


async def test_failed_update_does_not_delay_the_others_of_its_batch(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    batch = json.loads(delivery(1, 2, 3))
    batch["entry"][0]["changes"][1]["value"]["messages"][0]["text"]["body"] = "fail"
    await client.post("/webhooks/whatsapp", **by_meta(json.dumps(batch).encode()))
    found = await wait_until_attempted(database, 3)
    assert sorted(row["processed_at"] is None for row in found) == [False, False, True]
    assert len(processed) == 3


async def test_concurrent_overlapping_batches_store_each_update_once(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    batches = [delivery(*order) for order in itertools.permutations(range(4))]
    responses = await asyncio.gather(
        *(client.post("/webhooks/whatsapp", **by_meta(batch)) for batch in batches)
    )
    assert {response.status_code for response in responses} == {200}
    statuses = [response.json()["status"] for response in responses]
    assert sorted(statuses) == ["repeated"] * 23 + ["stored"]
    assert [row["attempts"] for row in await wait_until_attempted(database, 4)] == [1] * 4
    assert len(processed) == 4


@pytest.mark.usefixtures("clean_tables")
async def test_events_are_stored_in_the_order_of_their_ids(database: Database) -> None:
    """In another order, two batches with common events could deadlock."""
    events = [NewEvent(event_id, b"{}") for event_id in "cabed"]
    async with database.session() as session:
        # In a new file, rows are in the order of their insertion: no space of old rows is used.
        await session.execute(text("TRUNCATE webhook_deliveries"))
        assert sorted(await service.store(session, "whatsapp", events)) == list("abcde")
        in_order = text("SELECT id FROM webhook_deliveries ORDER BY ctid")
        assert [row["id"] for row in await fetch(session, in_order)] == list("abcde")
        assert await service.store(session, "whatsapp", events[:2]) == []


async def test_concurrent_github_deliveries_are_processed_once(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    responses = await asyncio.gather(
        *(client.post("/webhooks/ci", **by_github(guid=str(number))) for number in range(20))
    )
    assert {response.status_code for response in responses} == {202}
    statuses = [response.json()["status"] for response in responses]
    assert sorted(statuses) == ["repeated"] * 19 + ["stored"]
    await wait_until_attempted(database, 1)
    assert len(processed) == 1


async def test_either_hub_secret_of_a_rotation_is_accepted(client: AsyncClient) -> None:
    for number, secret in enumerate((META, NEW_META)):
        response = await client.post("/webhooks/whatsapp", **by_meta(delivery(number), secret))
        assert response.json() == {"status": "stored"}
    for body, secret in ((PING, GITHUB), (b"{}", NEW_GITHUB)):
        response = await client.post("/webhooks/ci", **by_github(body, secret))
        assert response.json() == {"status": "stored"}


async def test_same_body_from_two_sources_is_stored_twice(client: AsyncClient) -> None:
    for source, arguments in (("whatsapp", by_meta(b"{}")), ("ci", by_github(b"{}"))):
        response = await client.post(f"/webhooks/{source}", **arguments)
        assert response.json() == {"status": "stored"}


def by_sha1(body: bytes) -> dict[str, Any]:
    signature = hmac.new(META.encode(), body, hashlib.sha1).hexdigest()
    return {"content": body, "headers": {"X-Hub-Signature": f"sha1={signature}"}}


def with_signature(arguments: dict[str, Any], change: Any) -> dict[str, Any]:
    headers = arguments["headers"]
    changed = change(headers["X-Hub-Signature-256"])
    return arguments | {"headers": headers | {"X-Hub-Signature-256": changed}}


def without(arguments: dict[str, Any], name: str) -> dict[str, Any]:
    headers = {key: value for key, value in arguments["headers"].items() if key != name}
    return arguments | {"headers": headers}


HUB, WRONG = "Send X-Hub-Signature-256", "No signature matches."
REFUSED = {
    "meta, no signature": ("whatsapp", {"content": PING}, HUB),
    "meta, SHA-1": ("whatsapp", by_sha1(PING), HUB),
    "meta, standard": ("whatsapp", standard_request(PING, STANDARD), HUB),
    "meta, another secret": ("whatsapp", by_meta(PING, GITHUB), WRONG),
    "meta, another body": ("whatsapp", by_meta(PING) | {"content": PING + b" "}, WRONG),
    "meta, cut": ("whatsapp", with_signature(by_meta(PING), lambda s: s[:-1]), HUB),
    "meta, longer": ("whatsapp", with_signature(by_meta(PING), lambda s: f"{s}0"), HUB),
    "meta, two": ("whatsapp", with_signature(by_meta(PING), lambda s: f"{s},{s}"), HUB),
    "meta, letters": ("whatsapp", with_signature(by_meta(PING), lambda s: f"{s[:-1]}\xe9"), HUB),
    "github, no event": ("ci", without(by_github(), "X-GitHub-Event"), "Send X-GitHub-Event"),
    "github, odd event": ("ci", by_github(event="a b"), "Send X-GitHub-Event"),
    "github, no signature": ("ci", without(by_github(), "X-Hub-Signature-256"), HUB),
    "github, of meta": ("ci", by_github(secret=META), WRONG),
    "github, another body": ("ci", by_github() | {"content": b"{}"}, WRONG),
    "standard, of meta": ("shop", by_meta(PING), "Send webhook-id"),
    "standard, of github": ("shop", by_github(), "Send webhook-id"),
}


@pytest.mark.parametrize(("source", "arguments", "detail"), REFUSED.values(), ids=REFUSED)
async def test_hub_delivery_with_an_invalid_signature_returns_401_and_is_not_stored(
    client: AsyncClient, database: Database, source: str, arguments: dict[str, Any], detail: str
) -> None:
    headers = {
        name.encode(): value.encode("latin-1")
        for name, value in arguments.get("headers", {}).items()
    }
    response = await client.post(
        f"/webhooks/{source}", content=arguments["content"], headers=headers
    )
    assert is_problem(response, 401, "invalid-webhook-signature")
    assert response.headers["WWW-Authenticate"] == "Webhook-Signature"
    assert response.json()["detail"].startswith(detail)
    assert await stored_rows(database) == []


async def test_hub_body_over_the_limit_returns_413(database_url: str, database: Database) -> None:
    settings = settings_with_sources(database_url, max_body_bytes=len(PING) - 1)
    async with running(create_app(settings)) as client:
        for source, arguments in (("whatsapp", by_meta(PING)), ("ci", by_github())):
            for content in (PING, in_chunks(PING)):
                response = await client.post(
                    f"/webhooks/{source}", **arguments | {"content": content}
                )
                assert response.status_code == 413
    assert await stored_rows(database) == []


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10):
        yield body[start : start + 10]


async def test_unsigned_hub_delivery_reads_no_body_and_takes_no_connection(
    database_url: str,
) -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield PING

    async def no_connection() -> None:
        raise RuntimeError("the route opened a session")

    app = create_app(settings_with_sources(database_url, request_body_timeout_seconds=0.05))
    app.dependency_overrides[open_session] = no_connection
    async with running(app) as client:
        for source in ("whatsapp", "ci"):
            assert (await client.post(f"/webhooks/{source}", content=never())).status_code == 401
        for source, arguments in (
            ("whatsapp", by_meta(PING, GITHUB)),
            ("ci", by_github(secret=META)),
        ):
            waiting = arguments | {"content": never()}
            assert (await client.post(f"/webhooks/{source}", **waiting)).status_code == 408
            assert (await client.post(f"/webhooks/{source}", **arguments)).status_code == 401
        assert (await client.post("/webhooks/ci", **by_github())).status_code == 500


async def test_meta_subscription_is_confirmed(client: AsyncClient) -> None:
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444"}
    query["hub.verify_token"] = VERIFY_TOKEN
    response = await client.get("/webhooks/whatsapp", params=query)
    assert (response.status_code, response.text) == (200, "1158201444")


async def test_openapi_document_describes_headers_and_statuses_of_every_kind(
    client: AsyncClient,
) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/webhooks/{source}"]["post"]
    assert operation["responses"].keys() >= {"200", "202", "401", "404", "413", "422", "default"}
    (of_200, of_202) = (
        operation["responses"][status]["content"]["application/json"] for status in ("200", "202")
    )
    assert of_200 == of_202
    headers = {p["name"]: p for p in operation["parameters"] if p["in"] == "header"}
    kinds = {
        "standard": ("webhook-id", "webhook-timestamp", "webhook-signature"),
        "meta": ("x-hub-signature-256",),
        "github": ("x-hub-signature-256", "x-github-event"),
    }
    assert headers.keys() == set(itertools.chain.from_iterable(kinds.values()))
    assert not any(header["required"] for header in headers.values())
    for kind, names in kinds.items():
        assert all(kind in headers[name]["description"] for name in names)
