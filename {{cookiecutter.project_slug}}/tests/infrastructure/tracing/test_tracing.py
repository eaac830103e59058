"""Traces of requests, SQL statements and HTTP calls, received by a collector over OTLP."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from app.db.url import parse_postgres_url
from app.http_client import open_http_client
from app.main import create_app
from app.tracing.transport import traced_transport
from app.web.dependencies import DatabaseDep, ReadConnection
from conftest import running, settings_for
from processes import Receiver
from sql import fetch
from trace_collector import NOT_SAMPLED, PARENT, SAMPLED, TRACE, collector, spans

__all__ = ["collector"]  # a fixture


@pytest.fixture
def other() -> Iterator[Receiver]:
    """Another service."""
    with Receiver() as receiver:
        yield receiver


def app_of(database_url: str, collector: Receiver, **values: object) -> FastAPI:
    """Return the service with routes that fail and call other services."""
    endpoint = f"http://{collector.address}"
    values = {"otel_exporter_otlp_endpoint": endpoint, "trace_ratio": 1.0} | values
    values = {"redis_url": None} | values  # option: redis
    app = create_app(settings_for(database_url, **values))

    @app.get("/_test/boom")
    async def boom() -> None:
        raise RuntimeError("of-an-error")

    @app.get("/_test/wrong")
    async def wrong(connection: ReadConnection) -> None:
        await connection.execute(text("SELECT 1 / 0"))

    @app.get("/_test/cancel")
    async def cancel(connection: ReadConnection) -> None:
        async with asyncio.timeout(0.1):
            await connection.execute(text("SELECT pg_sleep(5)"))

    @app.get("/_test/call")
    async def call(request: Request) -> int:
        transport = traced_transport(request.state.tracer)
        async with open_http_client(timeout_seconds=20, transport=transport) as client:
            return (await client.get(request.headers["X-Other"])).status_code

    @app.get("/_test/call-untraced")
    async def call_untraced(request: Request) -> int:
        async with open_http_client(timeout_seconds=20) as client:
            return (await client.get(request.headers["X-Other"])).status_code

    return app


async def test_request_of_an_unsampled_trace_passes_the_context_and_leaves_no_span(
    database_url: str, collector: Receiver, other: Receiver
) -> None:
    headers = {"traceparent": NOT_SAMPLED, "X-Other": f"http://{other.address}"}
    async with running(app_of(database_url, collector)) as client:
        problem = (await client.get("/_test/nowhere", headers=headers)).json()
        await client.get("/_test/call", headers=headers)
        await client.get("/_test/call-untraced", headers=headers)
    assert problem["trace_id"] == TRACE
    for request in other.received:
        version, trace, _, flags = request.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", TRACE, "00")
    assert len(other.received) == 2
    assert collector.received == []


async def test_call_without_the_traced_transport_passes_the_span_of_the_request(
    database_url: str, collector: Receiver, other: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        headers = {"traceparent": SAMPLED, "X-Other": f"http://{other.address}"}
        await client.get("/_test/call-untraced", headers=headers)
    (span,) = spans(collector)
    assert other.received[0].headers["traceparent"] == f"00-{TRACE}-{span['id']}-01"


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (1.0, 3)])
async def test_requests_without_a_trace_are_sampled_by_trace_ratio(
    database_url: str, collector: Receiver, ratio: float, count: int
) -> None:
    async with running(app_of(database_url, collector, trace_ratio=ratio)) as client:
        problems = [(await client.get("/_test/nowhere")).json() for _ in range(3)]
    assert len(spans(collector)) == count
    ids = {problem["trace_id"] for problem in problems}
    assert len(ids) == 3
    assert not count or ids == {span["trace"] for span in spans(collector)}


async def test_probes_of_a_sampled_trace_leave_no_span(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        for path in ("/health", "/health/live", "/health/ready"):
            await client.get(path, headers={"traceparent": SAMPLED})
    assert collector.received == []


async def test_spans_of_failures_have_error_types_and_no_messages(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        for path in ("/_test/boom", "/_test/wrong", "/_test/cancel", "/_test/call"):
            answer = await client.get(path, headers={"X-Other": "http://127.0.0.1:1/"})
            assert answer.status_code == 500
    failed = [(s["name"], s["attributes"]["error.type"]) for s in spans(collector) if s["failed"]]
    assert sorted(failed) == [
        ("GET", "ConnectError"),
        ("GET /_test/boom", "500"),
        ("GET /_test/call", "500"),
        ("GET /_test/cancel", "500"),
        ("GET /_test/wrong", "500"),
        ("SELECT", "22012"),
        ("SELECT", "CancelledError"),
    ]
    assert not any(span["events"] for span in spans(collector))
    assert not any(b"of-an-error" in request.body for request in collector.received)


async def test_span_of_head_names_the_method_and_the_route(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.head("/_test/boom")
    assert [span["name"] for span in spans(collector)] == ["HEAD /_test/boom"]


async def test_request_with_an_unknown_method_is_named_other(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.request("BREW", "/_test/boom")
    assert [span["name"] for span in spans(collector)] == ["_OTHER /_test/boom"]


@pytest.mark.parametrize("sent", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "é", "x" * 9000])
async def test_request_with_an_invalid_traceparent_begins_a_trace(
    database_url: str, collector: Receiver, sent: str
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.get("/_test/nowhere", headers=[(b"traceparent", sent.encode())])
    (span,) = spans(collector)
    assert span["parent"] == ""


async def test_engines_and_clients_of_a_traced_service_that_it_did_not_open_leave_no_span(
    database_url: str, collector: Receiver, other: Receiver
) -> None:
    app = app_of(database_url, collector)

    @app.get("/_test/own")
    async def own() -> None:
        engine = create_async_engine(parse_postgres_url(database_url).url)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await engine.dispose()
        async with httpx.AsyncClient() as client:
            await client.get(f"http://{other.address}")

    async with running(app) as client:
        assert (await client.get("/_test/own")).status_code == 200
    assert [span["name"] for span in spans(collector)] == ["GET /_test/own"]
    assert other.received[0].headers["traceparent"] is None


async def test_statement_and_call_outside_of_a_trace_leave_no_span(
    database_url: str, collector: Receiver, other: Receiver
) -> None:
    app = app_of(database_url, collector)
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        await fetch(state["database"], text("SELECT 1"))
        transport = traced_transport(state["tracer"])
        async with open_http_client(transport=transport) as client:
            await client.get(f"http://{other.address}")
    assert collector.received == []
    assert other.received[0].headers["traceparent"] is None


async def test_span_of_a_statement_ends_before_the_connection_is_used_again(
    database_url: str, collector: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(database_url, collector, database_pool_size=1)

    @app.get("/_test/statements")
    async def statements(database: DatabaseDep) -> None:
        for statement in ("SELECT 1", "SELECT 1 / 0", "SELECT 2"):
            with suppress(DBAPIError):
                await fetch(database, text(statement))

    async with running(app) as client:
        await client.get("/_test/statements", headers={"traceparent": SAMPLED})
        await client.get("/_test/statements", headers={"traceparent": NOT_SAMPLED})
    found = [span for span in spans(collector) if span["name"] == "SELECT"]
    assert [span["attributes"]["db.query.text"] for span in found] == [
        "SELECT 1",
        "SELECT 1 / 0",
        "SELECT 2",
    ]
    assert [span["failed"] for span in found] == [False, True, False]
    assert not [r for r in caplog.records if r.name.startswith("opentelemetry")], "ended twice"


@pytest.mark.parametrize(
    "values",
    [{"otel_exporter_otlp_endpoint": "collector:4318"}, {"trace_ratio": 1.1}, {"trace_ratio": -1}],
)
def test_settings_with_invalid_values_are_refused(
    database_url: str, values: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        settings_for(database_url, **values)
