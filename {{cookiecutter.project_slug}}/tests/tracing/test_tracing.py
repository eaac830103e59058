"""Traces of requests, SQL statements and HTTP calls, received by a collector over OTLP."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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
from app.service_info import SERVICE_NAME
from app.tracing.export import FLUSH_SECONDS
from app.tracing.transport import traced_transport
from app.web.dependencies import DatabaseDep, ReadConnection
from conftest import running, settings_for
from processes import APP, ROOT, Receiver, Service, environment, wait_until
from sql import fetch
from trace_collector import NOT_SAMPLED, PARENT, SAMPLED, TRACE, collector, spans

__all__ = ["collector"]  # a fixture

# Appended to a copy of main.py: a route that uses the database and calls another service.
CALLING = """

_create_app = create_app


def create_app(settings):
    from fastapi import Request
    from sqlalchemy import text
    from app.http_client import open_http_client
    from app.tracing.transport import traced_transport
    from app.web.dependencies import ReadConnection

    app = _create_app(settings)

    @app.get("/call/{word}")
    async def call(word: str, request: Request, connection: ReadConnection) -> str:
        parameters = {"value": "of-a-parameter"}
        await connection.execute(text("SELECT CAST(:value AS text)"), parameters)
        transport = traced_transport(request.state.tracer)
        async with open_http_client(transport=transport) as client:
            await client.get(request.headers["X-Other"] + "/other?of=an-outer-query")
        return word

    return app
"""


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

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("of-an-error")

    @app.get("/wrong")
    async def wrong(connection: ReadConnection) -> None:
        await connection.execute(text("SELECT 1 / 0"))

    @app.get("/cancel")
    async def cancel(connection: ReadConnection) -> None:
        async with asyncio.timeout(0.1):
            await connection.execute(text("SELECT pg_sleep(5)"))

    @app.get("/call")
    async def call(request: Request) -> int:
        transport = traced_transport(request.state.tracer)
        async with open_http_client(timeout_seconds=1, transport=transport) as client:
            return (await client.get(request.headers["X-Other"])).status_code

    @app.get("/call-untraced")
    async def call_untraced(request: Request) -> int:
        async with open_http_client(timeout_seconds=1) as client:
            return (await client.get(request.headers["X-Other"])).status_code

    return app


def serve_calling(source: Path, database_url: str, collector: str, **variables: str) -> Service:
    main = source / "app" / "main.py"
    main.write_text(main.read_text() + CALLING)
    env = environment(
        database_url,
        PYTHONPATH=str(source),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector}",
        **variables,
    )
    return Service([*APP, "serve"], env)


def test_trace_of_a_sampled_request_spans_client_service_database_and_called_service(
    database_url: str, source: Path, collector: Receiver, other: Receiver
) -> None:
    with serve_calling(
        source, database_url, collector.address, COMMIT_SHA="c0ffee", TRACE_RATIO="0"
    ) as service:
        url = service.wait_until_ready()
        answer = httpx.get(
            f"{url}/call/ada@example.com?of=the-query",
            headers={
                "traceparent": SAMPLED,
                "tracestate": "vendor=of-the-caller",
                "X-Other": f"http://{other.address}",
                "Authorization": "Bearer of-a-header",
                "X-Request-Id": "of-this-test",
            },
        )
        assert answer.status_code == 200
        service.process.send_signal(signal.SIGTERM)  # at once: the spans are flushed at the end
        assert service.wait() == 0
        assert service.stderr == ""
        lines = [line for line in service.lines if line.get("request_id") == "of-this-test"]
    assert lines
    assert {line.get("trace_id") for line in lines} == {TRACE}
    found = {span["name"]: span for span in spans(collector)}
    assert {span["trace"] for span in found.values()} == {TRACE}
    request, statement, call = found["GET /call/{word}"], found["SELECT"], found["GET"]
    assert request["parent"] == PARENT
    assert statement["parent"] == call["parent"] == request["id"]
    (called,) = other.received
    assert called.headers["traceparent"] == f"00-{TRACE}-{call['id']}-01"
    assert called.headers["tracestate"] == "vendor=of-the-caller"
    assert request["attributes"] == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/call/{word}",
        "url.path": "/call/[redacted]",
        "url.scheme": "http",
    }
    assert statement["attributes"]["db.query.text"].startswith("SELECT CAST($1")
    assert call["attributes"]["url.full"] == f"http://{other.address}/other"
    assert request["resource"]["service.name"] == SERVICE_NAME
    assert request["resource"]["vcs.ref.head.revision"] == "c0ffee"
    everything = b"".join(request.body for request in collector.received)
    for word in ("of-a-parameter", "the-query", "outer-query", "of-a-header", "ada@"):
        assert word.encode() not in everything, word


async def test_request_of_an_unsampled_trace_passes_the_context_and_leaves_no_span(
    database_url: str, collector: Receiver, other: Receiver
) -> None:
    headers = {"traceparent": NOT_SAMPLED, "X-Other": f"http://{other.address}"}
    async with running(app_of(database_url, collector)) as client:
        problem = (await client.get("/nowhere", headers=headers)).json()
        await client.get("/call", headers=headers)
        await client.get("/call-untraced", headers=headers)
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
        await client.get("/call-untraced", headers=headers)
    (span,) = spans(collector)
    assert other.received[0].headers["traceparent"] == f"00-{TRACE}-{span['id']}-01"


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (1.0, 3)])
async def test_requests_without_a_trace_are_sampled_by_trace_ratio(
    database_url: str, collector: Receiver, ratio: float, count: int
) -> None:
    async with running(app_of(database_url, collector, trace_ratio=ratio)) as client:
        problems = [(await client.get("/nowhere")).json() for _ in range(3)]
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
        for path in ("/boom", "/wrong", "/cancel", "/call"):
            answer = await client.get(path, headers={"X-Other": "http://127.0.0.1:1/"})
            assert answer.status_code == 500
    failed = [(s["name"], s["attributes"]["error.type"]) for s in spans(collector) if s["failed"]]
    assert sorted(failed) == [
        ("GET", "ConnectError"),
        ("GET /boom", "500"),
        ("GET /call", "500"),
        ("GET /cancel", "500"),
        ("GET /wrong", "500"),
        ("SELECT", "22012"),
        ("SELECT", "CancelledError"),
    ]
    assert not any(span["events"] for span in spans(collector))
    assert not any(b"of-an-error" in request.body for request in collector.received)


async def test_span_of_head_names_the_method_and_the_route(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.head("/boom")
    assert [span["name"] for span in spans(collector)] == ["HEAD /boom"]


async def test_request_with_an_unknown_method_is_named_other(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.request("BREW", "/boom")
    assert [span["name"] for span in spans(collector)] == ["_OTHER /boom"]


@pytest.mark.parametrize("sent", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "é", "x" * 9000])
async def test_request_with_an_invalid_traceparent_begins_a_trace(
    database_url: str, collector: Receiver, sent: str
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.get("/nowhere", headers=[(b"traceparent", sent.encode())])
    (span,) = spans(collector)
    assert span["parent"] == ""


def test_collector_that_does_not_answer_delays_no_request_and_a_full_queue_is_logged(
    database_url: str, source: Path, other: Receiver
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serve_calling(
            source,
            database_url,
            f"127.0.0.1:{silent.getsockname()[1]}",
            TRACE_RATIO="1",
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8",
            OTEL_BSP_MAX_QUEUE_SIZE="16",
        ) as service,
    ):
        url = service.wait_until_ready()
        for _ in range(20):
            answer = httpx.get(
                f"{url}/call/x", headers={"X-Other": f"http://{other.address}"}, timeout=2
            )
            assert answer.status_code == 200
        full = [line for line in service.messages() if line.startswith("Queue full")]
        assert 1 <= len(full) <= 3, "the log has a line for every span"
        service.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert service.wait() == 0
        assert time.monotonic() - started < FLUSH_SECONDS + 5
        assert service.stderr == ""


def test_collector_that_refuses_spans_and_accepts_them_again_is_logged_once_each(
    database_url: str, source: Path, collector: Receiver, other: Receiver
) -> None:
    lost = "traces are lost: the collector does not accept them"
    found = "traces are accepted again"
    collector.status = 400
    with serve_calling(
        source,
        database_url,
        collector.address,
        TRACE_RATIO="1",
        OTEL_BSP_SCHEDULE_DELAY="50",
    ) as service:
        url = service.wait_until_ready()
        for attempt in range(1, 4):
            httpx.get(f"{url}/call/x", headers={"X-Other": f"http://{other.address}"})
            wait_until(lambda least=attempt: len(collector.received) >= least, doing=service)  # type: ignore[misc]  # mypy does not see the default
        collector.status = 200
        httpx.get(f"{url}/call/x", headers={"X-Other": f"http://{other.address}"})
        wait_until(lambda: found in service.messages(), doing=service)
        assert service.messages().count(lost) == service.messages().count(found) == 1
        assert not [line for line in service.lines if "opentelemetry" in line.get("logger", "")]
        assert service.stderr == ""


def test_service_without_an_endpoint_imports_no_sdk_and_adds_no_middleware(
    database_url: str,
) -> None:
    script = """
import asyncio, sys, threading
from app.main import create_served_app
async def run():
    app = create_served_app()
    async with app.router.lifespan_context(app) as state:
        assert state["tracer"] is None
        assert "TracingMiddleware" not in str(app.user_middleware)
        assert not [t for t in threading.enumerate() if "Otel" in t.name]
asyncio.run(run())
found = [name for name in ("sdk.trace", "exporter") if f"opentelemetry.{name}" in sys.modules]
assert not found, found
"""
    env = environment(database_url)
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, check=False)
    assert result.returncode == 0


async def test_engines_and_clients_of_a_traced_service_that_it_did_not_open_leave_no_span(
    database_url: str, collector: Receiver, other: Receiver
) -> None:
    app = app_of(database_url, collector)

    @app.get("/own")
    async def own() -> None:
        engine = create_async_engine(parse_postgres_url(database_url).url)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await engine.dispose()
        async with httpx.AsyncClient() as client:
            await client.get(f"http://{other.address}")

    async with running(app) as client:
        assert (await client.get("/own")).status_code == 200
    assert [span["name"] for span in spans(collector)] == ["GET /own"]
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

    @app.get("/statements")
    async def statements(database: DatabaseDep) -> None:
        for statement in ("SELECT 1", "SELECT 1 / 0", "SELECT 2"):
            with suppress(DBAPIError):
                await fetch(database, text(statement))

    async with running(app) as client:
        await client.get("/statements", headers={"traceparent": SAMPLED})
        await client.get("/statements", headers={"traceparent": NOT_SAMPLED})
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
