"""Traces of a process of the service."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.service_info import SERVICE_NAME
from app.tracing.export import EXPORT_SECONDS, FLUSH_SECONDS
from processes import Receiver, Service, append_to_main, environment, get, wait_until
from trace_collector import PARENT, SAMPLED, TRACE, collector, spans

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

    @app.get("/_test/call/{word}")
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


def serve_calling(source: Path, database_url: str, collector: str, **variables: str) -> Service:
    env = environment(
        database_url,
        **append_to_main(source, CALLING),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector}",
        **variables,
    )
    return Service(["app", "serve"], env)


def test_trace_of_a_sampled_request_spans_client_service_database_and_called_service(
    database_url: str, source: Path, collector: Receiver, other: Receiver
) -> None:
    with serve_calling(
        source, database_url, collector.address, COMMIT_SHA="c0ffee", TRACE_RATIO="0"
    ) as service:
        url = service.wait_until_ready()
        answer = get(
            f"{url}/_test/call/ada@example.com?of=the-query",
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
    request, statement, call = found["GET /_test/call/{word}"], found["SELECT"], found["GET"]
    assert request["parent"] == PARENT
    assert statement["parent"] == call["parent"] == request["id"]
    (called,) = other.received
    assert called.headers["traceparent"] == f"00-{TRACE}-{call['id']}-01"
    assert called.headers["tracestate"] == "vendor=of-the-caller"
    assert request["attributes"] == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/_test/call/{word}",
        "url.path": "/_test/call/[redacted]",
        "url.scheme": "http",
    }
    assert statement["attributes"]["db.query.text"].startswith("SELECT CAST($1")
    assert call["attributes"]["url.full"] == f"http://{other.address}/other"
    assert request["resource"]["service.name"] == SERVICE_NAME
    assert request["resource"]["vcs.ref.head.revision"] == "c0ffee"
    everything = b"".join(request.body for request in collector.received)
    for word in ("of-a-parameter", "the-query", "outer-query", "of-a-header", "ada@"):
        assert word.encode() not in everything, word


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
        started = time.monotonic()
        for _ in range(20):
            answer = get(
                f"{url}/_test/call/x", headers={"X-Other": f"http://{other.address}"}, timeout=60
            )
            assert answer.status_code == 200
        seconds = time.monotonic() - started
        assert seconds < 20 * EXPORT_SECONDS
        full = [line for line in service.messages() if line.startswith("Queue full")]
        # The SDK logs it at most every 20 seconds.
        assert 1 <= len(full) <= 3 + seconds / 20, "the log has a line for every span"
        service.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert service.wait() == 0
        assert time.monotonic() - started < FLUSH_SECONDS + 10  # on a busy machine
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
            get(f"{url}/_test/call/x", headers={"X-Other": f"http://{other.address}"})
            wait_until(lambda least=attempt: len(collector.received) >= least, doing=service)  # type: ignore[misc]  # mypy does not see the default
        collector.status = 200
        get(f"{url}/_test/call/x", headers={"X-Other": f"http://{other.address}"})
        wait_until(lambda: found in service.messages(), doing=service)
        assert service.messages().count(lost) == service.messages().count(found) == 1
        assert not [line for line in service.lines if "opentelemetry" in line.get("logger", "")]
        assert service.stderr == ""
