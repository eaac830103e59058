"""Error reports of a process of the service."""

import signal
import socket
import time
from pathlib import Path

import httpx

from app.sentry.reporting import FLUSH_SECONDS
from app.service_info import SERVICE_NAME
from error_receiver import dsn_of, events, receiver
from processes import Receiver, Service, append_to_main, environment

__all__ = ["receiver"]  # a fixture


# Appended to a copy of main.py: a route that fails.
FAILING = """

_create_app = create_app


def create_app(settings):
    app = _create_app(settings)

    @app.post("/_test/boom/{word}")
    async def boom(word: str) -> None:
        local_word = "of-a-variable"
        raise RuntimeError("password=hunter2 of ada@example.com")

    return app
"""


def serve_failing(source: Path, database_url: str, address: str, **variables: str) -> Service:
    env = environment(
        database_url,
        **append_to_main(source, FAILING),
        SENTRY_DSN=dsn_of(address),
        **variables,
    )
    return Service(["app", "serve"], env)


def test_unhandled_error_is_reported_with_its_context_and_without_data_of_the_client(
    database_url: str, source: Path, receiver: Receiver
) -> None:
    with serve_failing(source, database_url, receiver.address, COMMIT_SHA="c0ffee") as service:
        url = service.wait_until_ready()
        answer = httpx.post(
            f"{url}/_test/boom/of-the-path?of=the-query",
            headers={"X-Request-Id": "of-this-test", "Authorization": "Bearer of-a-header"},
            cookies={"session": "of-a-cookie"},
            json={"word": "of-the-body"},
        )
        service.process.send_signal(signal.SIGTERM)  # at once: the reports are flushed at the end
        assert service.wait() == 0
        assert service.stderr == ""
    assert answer.status_code == 500
    (event,) = events(receiver)
    assert event["transaction"] == "POST /_test/boom/{word}"
    about = {"request_id": "of-this-test", "method": "POST", "route": "/_test/boom/{word}"}
    assert about.items() <= event["tags"].items()
    assert event["environment"] == "test"
    assert event["release"].startswith(f"{SERVICE_NAME}@")
    assert event["release"].endswith("+c0ffee")
    (error,) = event["exception"]["values"]
    assert (error["type"], error["mechanism"]["handled"]) == ("RuntimeError", False)
    assert error["value"] == "password=[redacted] of [redacted]"
    assert error["stacktrace"]["frames"][-1]["function"] == "boom"
    assert "vars" not in error["stacktrace"]["frames"][-1]
    (request,) = receiver.received
    words = ("of-the-path", "the-query", "of-a-header", "of-a-cookie", "of-the-body", "hunter2")
    for word in (*words, "ada@"):
        assert word.encode() not in request.body, word
    assert {"request", "user", "server_name"}.isdisjoint(event)
    assert event["breadcrumbs"] == {"values": []}


def test_receiver_that_does_not_answer_delays_neither_requests_nor_the_end(
    database_url: str, source: Path
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serve_failing(
            source, database_url, f"127.0.0.1:{silent.getsockname()[1]}", LOG_LEVEL="debug"
        ) as service,
    ):
        url = service.wait_until_ready()
        for _ in range(3):
            assert httpx.post(f"{url}/_test/boom/x", timeout=20).status_code == 500
        service.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert service.wait() == 0
        assert time.monotonic() - started < FLUSH_SECONDS + 10  # on a busy machine
        assert service.stderr == ""
        assert service.lines
