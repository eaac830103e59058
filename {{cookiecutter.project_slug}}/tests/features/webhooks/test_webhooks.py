import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from httpx import AsyncClient, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs
from structlog.typing import EventDict

from app.db.session import Database, open_database
from app.errors import ServiceError, Unavailable
from app.features.webhooks import (
    background,
    routes,  # option: worker
    service,
)
from app.features.webhooks.process import Event
from app.features.webhooks.routes import (
    InvalidWebhookSignature,
    UnknownWebhookSource,
    WebhookChallengeRefused,
)
from app.features.webhooks.service import STORE, TAKE
from app.main import create_app
from app.settings import Settings
from app.web.dependencies import open_session
from conftest import is_problem, running, settings_for
from sql import fetch
from webhook_senders import standard_request, stored_rows, wait_until_attempted

PROBLEM = "application/problem+json"
SHOP, NEW_SHOP, BANK = (bytes([number] * 32) for number in range(3))
VERIFY_TOKEN = base64.b64encode(bytes(range(16))).decode()
BODY = b'{"type": "order.paid", "data": {"id": 7}}'


def settings_with_secrets(database_url: str, **values: object) -> Settings:
    keys = {"shop": SHOP, "bank": BANK}
    pairs = [*keys.items(), ("shop", NEW_SHOP)]
    secrets = ",".join(f"{s}:whsec_{base64.b64encode(key).decode()}" for s, key in pairs)
    values = {"webhook_secrets": secrets, "webhook_verify_token": VERIFY_TOKEN} | values
    return settings_for(database_url, **values)


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EventDict]]:
    """Capture the log: formatting a traceback can take longer than a statement timeout.

    The module gets a new logger. A logger keeps the configuration at its first use, which may have
    been in a test with another configuration.
    """
    in_process = background.open_background_processor  # option: worker
    monkeypatch.setattr(routes, "open_processor", in_process)  # option: worker
    monkeypatch.setattr(service, "log", structlog.get_logger())
    with capture_logs() as lines:
        yield lines


@pytest.fixture
async def client(
    database_url: str,
    clean_tables: None,  # noqa: ARG001 - used for its effect
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[AsyncClient]:
    """Yield a client of a service whose background processor does not start by itself."""
    monkeypatch.setattr(background, "START_SECONDS", 3600)
    async with running(create_app(settings_with_secrets(database_url))) as client:
        yield client


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings) as database:
        yield database


@pytest.fixture
def processed(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Record the events that are processed; an event with `fail` in its body fails."""
    events: list[Event] = []

    async def process(event: Event, session: AsyncSession) -> None:
        events.append(event)
        await fetch(session, text("SELECT 1"))
        if b"fail" in event.body:
            raise RuntimeError("the warehouse is closed")

    monkeypatch.setattr(service, "process", process)
    return events


def signed(body: bytes = BODY, *, key: bytes = SHOP, **more: Any) -> dict[str, Any]:
    return standard_request(body, key, **more)


async def test_delivery_is_stored_acknowledged_and_processed(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    response = await client.post("/webhooks/shop", **signed())
    assert (response.status_code, response.json()) == (202, {"status": "stored"})
    (row,) = await wait_until_attempted(database)
    assert (row["source"], row["id"], row["body"]) == ("shop", "msg_1", BODY)
    assert row["processed_at"] >= row["received_at"]
    assert (row["attempts"], row["error"], row["due_at"]) == (1, None, None)
    (event,) = processed
    assert event == Event("shop", "msg_1", row["received_at"], BODY)


async def test_repeated_delivery_is_acknowledged_and_not_processed_again(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    await client.post("/webhooks/shop", **signed())
    await wait_until_attempted(database)
    again = await client.post("/webhooks/shop", **signed(b"{}", age_seconds=-60))
    assert (again.status_code, again.json()) == (202, {"status": "repeated"})
    await service.process_next(database)
    assert [event.body for event in processed] == [BODY]


async def test_same_id_from_two_sources_is_stored_twice(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    await client.post("/webhooks/shop", **signed())
    assert (await client.post("/webhooks/bank", **signed(key=BANK))).json()["status"] == "stored"
    await wait_until_attempted(database, 2)
    assert {event.source for event in processed} == {"shop", "bank"}


async def test_either_secret_of_a_rotation_is_accepted(client: AsyncClient) -> None:
    for number, key in enumerate((SHOP, NEW_SHOP)):
        arguments = signed(key=key, delivery_id=f"msg_{number}")
        assert (await client.post("/webhooks/shop", **arguments)).status_code == 202


def with_headers(**headers: str) -> dict[str, Any]:
    arguments = signed()
    arguments["headers"].update(headers)
    return arguments


def without(name: str) -> dict[str, Any]:
    arguments = signed()
    del arguments["headers"][name]
    return arguments


@pytest.mark.parametrize(
    ("make_request", "detail"),
    [
        (lambda: {"content": BODY}, "Send webhook-id"),
        (lambda: without("webhook-id"), "Send webhook-id"),
        (lambda: without("webhook-timestamp"), "Send webhook-id"),
        (lambda: without("webhook-signature"), "No signature matches."),
        (lambda: signed(delivery_id="a.b"), "Send webhook-id"),
        (lambda: signed(age_seconds=310), "The timestamp"),
        (lambda: signed(age_seconds=-360), "The timestamp"),
        (lambda: signed(key=BANK), "No signature matches."),
        (lambda: signed() | {"content": BODY + b" "}, "No signature matches."),
        (lambda: with_headers(**{"webhook-id": "msg_2"}), "No signature matches."),
        (lambda: with_headers(**{"webhook-signature": "v1,"}), "No signature matches."),
    ],
)
async def test_delivery_with_an_invalid_signature_returns_401_and_is_not_stored(
    client: AsyncClient, database: Database, make_request: Any, detail: str
) -> None:
    response = await client.post("/webhooks/shop", **make_request())
    assert is_problem(response, 401, "invalid-webhook-signature")
    assert response.headers["WWW-Authenticate"] == "Webhook-Signature"
    assert response.json()["detail"].startswith(detail)
    assert await stored_rows(database) == []


async def test_delivery_within_the_time_tolerance_is_accepted(client: AsyncClient) -> None:
    for number, age in enumerate((240, -240)):
        arguments = signed(delivery_id=f"msg_{number}", age_seconds=age)
        assert (await client.post("/webhooks/shop", **arguments)).status_code == 202


@pytest.mark.parametrize("source", ["unknown", "Shop", "%00"])
async def test_unknown_source_returns_404(client: AsyncClient, source: str) -> None:
    path = f"/webhooks/{source}"
    assert is_problem(await client.post(path, **signed()), 404, "unknown-webhook-source")
    assert is_problem(await challenge(client, path=path), 404, "unknown-webhook-source")


async def test_every_source_without_secrets_returns_404(database_url: str) -> None:
    async with running(create_app(settings_for(database_url))) as client:
        assert (await client.post("/webhooks/shop", **signed())).status_code == 404


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_over_the_limit_returns_413(database_url: str, *, chunked: bool) -> None:
    settings = settings_with_secrets(database_url, max_body_bytes=1000)
    arguments = signed(b"x" * 1001)
    if chunked:
        arguments["content"] = in_chunks(b"x" * 1001)
    async with running(create_app(settings)) as client:
        response = await client.post("/webhooks/shop", **arguments)
    assert response.status_code == 413
    assert response.headers["Content-Type"] == PROBLEM


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100):
        yield body[start : start + 100]


async def test_unsigned_delivery_reads_no_body_and_takes_no_connection(database_url: str) -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield BODY

    async def no_connection() -> None:
        raise RuntimeError("the route opened a session")

    app = create_app(settings_with_secrets(database_url, request_body_timeout_seconds=0.05))
    app.dependency_overrides[open_session] = no_connection
    async with running(app) as client:
        stale = signed(age_seconds=310) | {"content": never()}
        assert (await client.post("/webhooks/shop", **stale)).status_code == 401
        waiting = signed() | {"content": never()}
        assert (await client.post("/webhooks/shop", **waiting)).status_code == 408
        assert (await client.post("/webhooks/shop", **signed(key=BANK))).status_code == 401


async def test_failed_event_stores_its_error_and_is_retried_later(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    await client.post("/webhooks/shop", **signed(b'"fail"'))
    (row,) = await wait_until_attempted(database)
    assert row["error"] == "RuntimeError: the warehouse is closed"
    assert (row["attempts"], row["processed_at"]) == (1, None)
    pause = (row["due_at"] - row["received_at"]).total_seconds()
    assert service.FIRST_PAUSE_SECONDS <= pause < service.FIRST_PAUSE_SECONDS + 10
    assert not await service.process_next(database)
    await make_due(database)
    assert await service.process_next(database)
    (row,) = await stored_rows(database)
    assert row["attempts"] == 2
    assert len(processed) == 2


async def make_due(database: Database) -> None:
    async with database.session() as session:
        await session.execute(
            text("UPDATE webhook_deliveries SET due_at = now() WHERE due_at IS NOT NULL")
        )


async def test_event_is_abandoned_after_the_maximum_of_attempts(
    client: AsyncClient, database: Database, processed: list[Event], logged: list[EventDict]
) -> None:
    await client.post("/webhooks/shop", **signed(b'"fail"'))
    await wait_until_attempted(database)
    for _ in range(service.MAX_ATTEMPTS + 3):
        await make_due(database)
        await service.process_next(database)
    (row,) = await stored_rows(database)
    assert (row["attempts"], row["due_at"]) == (service.MAX_ATTEMPTS, None)
    assert len(processed) == service.MAX_ATTEMPTS
    (line,) = [line for line in logged if line["event"] == "webhook failed"]
    assert (line["log_level"], line["source"], line["id"]) == ("error", "shop", "msg_1")


async def test_failed_event_rolls_back_its_changes(
    client: AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def process(event: Event, session: AsyncSession) -> None:
        values = {"source": "by process", "id": event.id, "body": b""}
        await fetch(session, STORE, values)
        await fetch(session, text("SELECT nothing FROM _test_nowhere"))

    monkeypatch.setattr(service, "process", process)
    await client.post("/webhooks/shop", **signed())
    (row,) = await wait_until_attempted(database)
    assert row["source"] == "shop"
    assert "_test_nowhere" in row["error"]


async def test_attempt_over_the_time_limit_fails(
    client: AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def process(_event: Event, _session: AsyncSession) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(service, "process", process)
    monkeypatch.setattr(service, "PROCESS_SECONDS", 0.2)
    await client.post("/webhooks/shop", **signed())
    (row,) = await wait_until_attempted(database)
    assert "TimeoutError" in row["error"]


async def test_failed_event_does_not_delay_the_others(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    for number, body in enumerate((b'"fail"', BODY, b'"fail"', BODY)):
        await client.post("/webhooks/shop", **signed(body, delivery_id=f"msg_{number}"))
    found = await wait_until_attempted(database, 4)
    assert [row["processed_at"] is not None for row in found] == [False, True, False, True]
    assert len(processed) == 4


async def test_event_locked_by_another_process_is_skipped(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    async with database.session() as other:
        await fetch(other, STORE, {"source": "shop", "id": "msg_0", "body": BODY})
    async with database.session() as other:
        locked = await other.scalar(TAKE)
        assert locked is not None
        await client.post("/webhooks/shop", **signed())
        async with asyncio.timeout(30):
            while not processed:
                await asyncio.sleep(0.02)
        assert [event.id for event in processed] == ["msg_1"]
    assert locked.id == "msg_0"


async def test_concurrent_deliveries_with_one_id_are_processed_once(
    client: AsyncClient, database: Database, processed: list[Event]
) -> None:
    responses = await asyncio.gather(
        *(client.post("/webhooks/shop", **signed()) for _ in range(20))
    )
    assert {response.status_code for response in responses} == {202}
    statuses = [response.json()["status"] for response in responses]
    assert sorted(statuses) == ["repeated"] * 19 + ["stored"]
    (row,) = await wait_until_attempted(database)
    assert row["attempts"] == 1
    assert len(processed) == 1


@pytest.mark.usefixtures("clean_tables")
async def test_background_processor_continues_after_an_error(
    database: Database, processed: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "START_SECONDS", 0)
    monkeypatch.setattr(background, "SWEEP_SECONDS", 0.01)
    failures: list[Exception] = [Unavailable("down"), RuntimeError("a bug")]
    process_next = service.process_next

    async def process_next_or_fail(database: Database) -> bool:
        if failures:
            raise failures.pop()
        return await process_next(database)

    monkeypatch.setattr(background, "process_next", process_next_or_fail)
    async with background.open_background_processor(database):
        for number in range(2):
            async with database.session() as other:
                values = {"source": "shop", "id": f"msg_{number}", "body": BODY}
                await fetch(other, STORE, values)
            await wait_until_attempted(database, number + 1)
    assert [event.id for event in processed] == ["msg_0", "msg_1"]


@pytest.mark.usefixtures("clean_tables")
async def test_shutdown_finishes_the_running_attempt_and_starts_no_other(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def process(_event: Event, _session: AsyncSession) -> None:
        begun.set()
        await asyncio.sleep(0.3)

    monkeypatch.setattr(service, "process", process)
    async with running(create_app(settings_with_secrets(database_url))) as client:
        await client.post("/webhooks/shop", **signed())
        await begun.wait()
        await client.post("/webhooks/shop", **signed(delivery_id="msg_2"))
    assert [row["attempts"] for row in await stored_rows(database)] == [1, 0]


@pytest.mark.usefixtures("clean_tables")
async def test_shutdown_cancels_an_attempt_over_the_stop_limit(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def process(_event: Event, _session: AsyncSession) -> None:
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(service, "process", process)
    monkeypatch.setattr(background, "STOP_SECONDS", 0.1)
    async with running(create_app(settings_with_secrets(database_url))) as client:
        await client.post("/webhooks/shop", **signed())
        await begun.wait()
    (row,) = await stored_rows(database)
    assert (row["attempts"], row["processed_at"]) == (0, None)
    assert row["due_at"] <= row["received_at"]


async def challenge(
    client: AsyncClient, *, path: str = "/webhooks/shop", **parameters: str
) -> Response:
    defaults = {"mode": "subscribe", "challenge": "1158201444", "verify_token": VERIFY_TOKEN}
    query = {f"hub.{name}": value for name, value in (defaults | parameters).items() if value}
    return await client.get(path, params=query)


async def test_challenge_is_returned_as_plain_text(client: AsyncClient) -> None:
    response = await challenge(client, challenge="<script>alert(1)</script>")
    assert (response.status_code, response.text) == (200, "<script>alert(1)</script>")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "token", ["wrong", "é", VERIFY_TOKEN + "x"], ids=["wrong", "letters", "longer"]
)
async def test_challenge_with_a_wrong_token_returns_403(client: AsyncClient, token: str) -> None:
    response = await challenge(client, verify_token=token)
    assert is_problem(response, 403, "webhook-challenge-refused")
    assert "1158201444" not in response.text


async def test_challenge_without_a_configured_token_returns_403(database_url: str) -> None:
    settings = settings_with_secrets(database_url, webhook_verify_token=None)
    async with running(create_app(settings)) as client:
        for token in ("None", VERIFY_TOKEN):
            assert (await challenge(client, verify_token=token)).status_code == 403


@pytest.mark.parametrize(
    "parameters",
    [
        *({"mode": "unsubscribe"}, {"mode": ""}, {"challenge": ""}, {"verify_token": ""}),
        *({"challenge": "a\nb"}, {"challenge": "é"}, {"challenge": "x" * 201}),
    ],
)
async def test_invalid_challenge_returns_422(
    client: AsyncClient, parameters: dict[str, str]
) -> None:
    response = await challenge(client, **parameters)
    assert (response.status_code, response.headers["Content-Type"]) == (422, PROBLEM)


async def test_openapi_document_describes_every_response(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operations = document["paths"]["/webhooks/{source}"]
    assert set(operations["post"]["responses"]) >= {"202", "401", "404", "413", "422", "default"}
    assert set(operations["get"]["responses"]) >= {"200", "403", "404", "422", "default"}
    assert set(operations["get"]["responses"]["200"]["content"]) == {"text/plain"}
    names = {parameter["name"] for parameter in operations["post"]["parameters"]}
    assert names >= {"source", "webhook-id", "webhook-timestamp", "webhook-signature"}


def test_types_and_titles_of_errors_are_stable() -> None:
    kinds: list[type[ServiceError]] = [
        UnknownWebhookSource,
        InvalidWebhookSignature,
        WebhookChallengeRefused,
    ]
    assert {kind.type: kind.title for kind in kinds} == {
        "urn:problem:unknown-webhook-source": "Unknown Webhook Source",
        "urn:problem:invalid-webhook-signature": "Invalid Webhook Signature",
        "urn:problem:webhook-challenge-refused": "Webhook Challenge Refused",
    }
