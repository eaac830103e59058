"""Traces, against a collector that speaks OTLP over HTTP."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError
from sqlalchemy import Engine, text

from app.http_client import open_http_client
from app.main import create_app
from app.service_info import SERVICE_NAME
from app.tracing.export import FLUSH_SECONDS
from app.web.dependencies import Reader
from conftest import running, settings_for
from processes import APP, ROOT, Received, Receiver, Service, environment, wait_until
from sql import fetch

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
# Put behind a copy of main.py: the service, with a route that asks others.
ASKING = """

_create_app = create_app


def create_app(settings):
    import httpx
    from fastapi import Request
    from sqlalchemy import text

    app = _create_app(settings)

    @app.get("/ask/{word}")
    async def ask(word: str, request: Request) -> str:
        database = request.state.database
        await fetch(database, text("SELECT CAST(:value AS text)"), {"value": "of-a-parameter"})
        async with httpx.AsyncClient() as client:
            await client.get(request.headers["X-Other"] + "/other?of=an-outer-query")
        return word

    return app
"""


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def other() -> Iterator[Receiver]:
    """Another service."""
    with Receiver() as receiver:
        yield receiver


def spans(collector: Receiver) -> list[dict[str, Any]]:
    """What was exported; whatever is no OTLP fails the test."""
    return [span for request in collector.received for span in spans_of(request)]


def spans_of(request: Received) -> Iterator[dict[str, Any]]:
    assert request.path == "/v1/traces"
    message = ExportTraceServiceRequest.FromString(request.body)
    for group in message.resource_spans:
        resource = {a.key: a.value.string_value for a in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield {
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "failed": span.status.code == 2,
                    "attributes": {
                        a.key: a.value.string_value or a.value.int_value for a in span.attributes
                    },
                    "resource": resource,
                    "events": len(span.events),
                }


def app_of(database_url: str, collector: Receiver, **values: object) -> FastAPI:
    """The service with routes that fail, or ask the database."""
    endpoint = f"http://{collector.address}"
    values = {"otel_exporter_otlp_endpoint": endpoint, "trace_ratio": 1.0} | values
    values = {"redis_url": None} | values  # option: redis
    app = create_app(settings_for(database_url, **values))

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("of-an-error")

    @app.get("/wrong")
    async def wrong(database: Reader) -> None:
        await fetch(database, text("SELECT 1 / 0"))

    @app.get("/call")
    async def call(request: Request) -> int:
        async with open_http_client(timeout_seconds=1) as client:
            return (await client.get(request.headers["X-Other"])).status_code

    return app


def serve_asking(source: Path, database_url: str, collector: str, **variables: str) -> Service:
    main = source / "app" / "main.py"
    main.write_text(main.read_text() + ASKING)
    env = environment(
        database_url,
        PYTHONPATH=str(source),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector}",
        **variables,
    )
    return Service([*APP, "serve"], env)


def test_a_request_and_all_it_asks_are_one_trace_from_the_caller_to_the_called(
    database_url: str, source: Path, collector: Receiver, other: Receiver
) -> None:
    with serve_asking(
        source, database_url, collector.address, COMMIT_SHA="c0ffee", TRACE_RATIO="0"
    ) as service:
        url = service.wait_until_ready()
        answer = httpx.get(
            f"{url}/ask/ada@example.com?of=the-query",
            headers={
                "traceparent": SAMPLED,
                "tracestate": "vendor=of-the-caller",
                "X-Other": f"http://{other.address}",
                "Authorization": "Bearer of-a-header",
                "X-Request-Id": "of-this-test",
            },
        )
        assert answer.status_code == 200
        service.process.send_signal(signal.SIGTERM)  # at once: what is on its way is waited for
        assert service.wait() == 0
        assert service.stderr == ""
        lines = [line for line in service.lines if line.get("request_id") == "of-this-test"]
    assert lines
    assert {line.get("trace_id") for line in lines} == {TRACE}
    found = {span["name"]: span for span in spans(collector)}
    assert {span["trace"] for span in found.values()} == {TRACE}
    request, statement, call = found["GET /ask/{word}"], found["SELECT"], found["GET"]
    assert request["parent"] == PARENT
    assert statement["parent"] == call["parent"] == request["id"]
    (called,) = other.received
    assert called.headers["traceparent"] == f"00-{TRACE}-{call['id']}-01"
    assert called.headers["tracestate"] == "vendor=of-the-caller"
    assert request["attributes"] == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/ask/{word}",
        "url.path": "/ask/[redacted]",
        "url.scheme": "http",
    }
    assert statement["attributes"]["db.query.text"].startswith("SELECT CAST($1")
    assert call["attributes"]["url.full"] == f"http://{other.address}/other"
    assert request["resource"]["service.name"] == SERVICE_NAME
    assert request["resource"]["vcs.ref.head.revision"] == "c0ffee"
    everything = b"".join(request.body for request in collector.received)
    for word in ("of-a-parameter", "the-query", "outer-query", "of-a-header", "ada@"):
        assert word.encode() not in everything, word


async def test_a_trace_that_the_caller_does_not_sample_leaves_only_its_id(
    database_url: str, collector: Receiver, other: Receiver
) -> None:
    headers = {"traceparent": NOT_SAMPLED, "X-Other": f"http://{other.address}"}
    async with running(app_of(database_url, collector)) as client:
        problem = (await client.get("/nowhere", headers=headers)).json()
        await client.get("/call", headers=headers)
    assert problem["trace_id"] == TRACE
    version, trace, _, flags = other.received[0].headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "00")
    assert collector.received == []


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (1.0, 3)])
async def test_the_share_of_requests_that_begin_a_trace_is_a_setting(
    database_url: str, collector: Receiver, ratio: float, count: int
) -> None:
    async with running(app_of(database_url, collector, trace_ratio=ratio)) as client:
        problems = [(await client.get("/nowhere")).json() for _ in range(3)]
    assert len(spans(collector)) == count
    ids = {problem["trace_id"] for problem in problems}
    assert len(ids) == 3
    assert not count or ids == {span["trace"] for span in spans(collector)}


async def test_probes_are_not_traced(database_url: str, collector: Receiver) -> None:
    async with running(app_of(database_url, collector)) as client:
        for path in ("/health", "/health/live", "/health/ready"):
            await client.get(path, headers={"traceparent": SAMPLED})
    assert collector.received == []


async def test_what_fails_is_named_and_not_quoted(database_url: str, collector: Receiver) -> None:
    async with running(app_of(database_url, collector)) as client:
        for path in ("/boom", "/wrong", "/call"):
            answer = await client.get(path, headers={"X-Other": "http://127.0.0.1:1/"})
            assert answer.status_code == 500
    failed = [(s["name"], s["attributes"]["error.type"]) for s in spans(collector) if s["failed"]]
    assert sorted(failed) == [
        ("GET", "ConnectError"),
        ("GET /boom", "500"),
        ("GET /call", "500"),
        ("GET /wrong", "500"),
        ("SELECT", "22012"),
    ]
    assert not any(span["events"] for span in spans(collector))
    assert not any(b"of-an-error" in request.body for request in collector.received)


async def test_span_of_head_names_the_method_and_the_route(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.head("/boom")
    assert [span["name"] for span in spans(collector)] == ["HEAD /boom"]


async def test_a_method_that_nobody_knows_makes_no_name_of_its_own(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.request("BREW", "/boom")
    assert [span["name"] for span in spans(collector)] == ["_OTHER /boom"]


@pytest.mark.parametrize("sent", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "é", "x" * 9000])
async def test_a_context_that_is_none_begins_a_trace(
    database_url: str, collector: Receiver, sent: str
) -> None:
    async with running(app_of(database_url, collector)) as client:
        await client.get("/nowhere", headers=[(b"traceparent", sent.encode())])
    (span,) = spans(collector)
    assert span["parent"] == ""


def test_a_collector_that_does_not_answer_holds_nothing_up_and_a_full_queue_says_so(
    database_url: str, source: Path, other: Receiver
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serve_asking(
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
                f"{url}/ask/x", headers={"X-Other": f"http://{other.address}"}, timeout=2
            )
            assert answer.status_code == 200
        full = [line for line in service.messages() if line.startswith("Queue full")]
        assert 1 <= len(full) <= 3, "not for every span: once in a while"
        service.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert service.wait() == 0
        assert time.monotonic() - started < FLUSH_SECONDS + 5
        assert service.stderr == ""


def test_a_collector_that_accepts_nothing_is_logged_once_and_so_is_its_return(
    database_url: str, source: Path, collector: Receiver, other: Receiver
) -> None:
    lost = "traces are lost: the collector does not accept them"
    found = "traces are accepted again"
    collector.status = 400
    with serve_asking(
        source,
        database_url,
        collector.address,
        TRACE_RATIO="1",
        OTEL_BSP_SCHEDULE_DELAY="50",
    ) as service:
        url = service.wait_until_ready()
        for attempt in range(1, 4):
            httpx.get(f"{url}/ask/x", headers={"X-Other": f"http://{other.address}"})
            wait_until(lambda least=attempt: len(collector.received) >= least, doing=service)  # type: ignore[misc]  # mypy does not see the default
        collector.status = 200
        httpx.get(f"{url}/ask/x", headers={"X-Other": f"http://{other.address}"})
        wait_until(lambda: found in service.messages(), doing=service)
        assert service.messages().count(lost) == service.messages().count(found) == 1
        assert not [line for line in service.lines if "opentelemetry" in line.get("logger", "")]
        assert service.stderr == ""


def test_without_an_endpoint_nothing_is_installed_or_even_imported(database_url: str) -> None:
    script = """
import asyncio, sys, threading
import httpx
from sqlalchemy import Engine
from app.main import create_served_app
async def run():
    send = httpx.AsyncClient.send
    app = create_served_app()
    async with app.router.lifespan_context(app):
        assert httpx.AsyncClient.send is send
        assert not Engine._has_events
        assert "TracingMiddleware" not in str(app.user_middleware)
        assert not [t for t in threading.enumerate() if "Otel" in t.name]
asyncio.run(run())
found = [name for name in ("sdk.trace", "exporter") if f"opentelemetry.{name}" in sys.modules]
assert not found, found
"""
    env = environment(database_url)
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, check=False)
    assert result.returncode == 0


async def test_when_the_service_ends_everything_is_as_it_was(
    database_url: str, collector: Receiver
) -> None:
    def listeners() -> int:
        hooks: Any = Engine.dispatch
        return len(hooks.before_cursor_execute._clslevel[Engine])  # noqa: SLF001 - no other way to see them

    before = httpx.AsyncClient.send, listeners()
    async with running(app_of(database_url, collector)):
        assert httpx.AsyncClient.send is not before[0]
        assert listeners() == before[1] + 1
    assert (httpx.AsyncClient.send, listeners()) == before


@pytest.mark.parametrize(
    "values",
    [{"otel_exporter_otlp_endpoint": "collector:4318"}, {"trace_ratio": 1.1}, {"trace_ratio": -1}],
)
def test_settings_that_are_none_are_refused(database_url: str, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings_for(database_url, **values)
