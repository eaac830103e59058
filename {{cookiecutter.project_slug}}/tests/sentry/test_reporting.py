"""Error reports, received by a server that speaks Sentry's protocol."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import sentry_sdk
from fastapi import FastAPI
from pydantic import ValidationError
from sentry_sdk.utils import Dsn

from app.errors import Conflict
from app.main import create_app
from app.sentry.reporting import FLUSH_SECONDS
from app.service_info import SERVICE_NAME
from app.settings import Settings
from conftest import Lines, running, settings_for
from error_receiver import dsn_of, events, receiver
from processes import APP, ROOT, Receiver, Service, environment

__all__ = ["receiver"]  # a fixture

# Appended to a copy of main.py: a route that fails.
FAILING = """

_create_app = create_app


def create_app(settings):
    app = _create_app(settings)

    @app.post("/boom/{word}")
    async def boom(word: str) -> None:
        local_word = "of-a-variable"
        raise RuntimeError("password=hunter2 of ada@example.com")

    return app
"""


def failing(app: FastAPI) -> FastAPI:
    @app.get("/boom/{word}")
    async def boom(word: str) -> None:
        raise Conflict if word == "handled" else RuntimeError(word)

    return app


def serve_failing(source: Path, database_url: str, address: str, **variables: str) -> Service:
    main = source / "app" / "main.py"
    main.write_text(main.read_text() + FAILING)
    env = environment(
        database_url,
        PYTHONPATH=str(source),
        SENTRY_DSN=dsn_of(address),
        **variables,
    )
    return Service([*APP, "serve"], env)


def test_unhandled_error_is_reported_with_its_context_and_without_data_of_the_client(
    database_url: str, source: Path, receiver: Receiver
) -> None:
    with serve_failing(source, database_url, receiver.address, COMMIT_SHA="c0ffee") as service:
        url = service.wait_until_ready()
        answer = httpx.post(
            f"{url}/boom/of-the-path?of=the-query",
            headers={"X-Request-Id": "of-this-test", "Authorization": "Bearer of-a-header"},
            cookies={"session": "of-a-cookie"},
            json={"word": "of-the-body"},
        )
        service.process.send_signal(signal.SIGTERM)  # at once: the reports are flushed at the end
        assert service.wait() == 0
        assert service.stderr == ""
    assert answer.status_code == 500
    (event,) = events(receiver)
    assert event["transaction"] == "POST /boom/{word}"
    about = {"request_id": "of-this-test", "method": "POST", "route": "/boom/{word}"}
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


async def test_handled_error_is_not_reported(database_url: str, receiver: Receiver) -> None:
    app = failing(create_app(settings_for(database_url, sentry_dsn=dsn_of(receiver.address))))
    async with running(app) as client:
        assert (await client.get("/boom/handled")).status_code == 409
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/boom/one")).status_code == 500
        assert (await client.get("/boom/two")).status_code == 500
    assert [event["exception"]["values"][0]["value"] for event in events(receiver)] == [
        "one",
        "two",
    ]


async def test_error_that_the_service_captures_itself_is_reported_as_handled(
    database_url: str, receiver: Receiver
) -> None:
    app = create_app(settings_for(database_url, sentry_dsn=dsn_of(receiver.address)))
    async with running(app):
        sentry_sdk.capture_exception(RuntimeError("password=hunter2"))
    (event,) = events(receiver)
    (error,) = event["exception"]["values"]
    assert (error["value"], error["mechanism"]["handled"]) == ("password=[redacted]", True)
    assert "server_name" not in event


async def test_exception_group_is_reported_with_the_relations_of_its_errors(
    database_url: str, receiver: Receiver
) -> None:
    app = create_app(settings_for(database_url, sentry_dsn=dsn_of(receiver.address)))

    @app.get("/group")
    async def group() -> None:
        raise ExceptionGroup("several", [KeyError("one"), OSError("two")])

    async with running(app) as client:
        await client.get("/group")
    (event,) = events(receiver)
    errors = {error["type"]: error["mechanism"] for error in event["exception"]["values"]}
    assert errors.keys() == {"ExceptionGroup", "KeyError", "OSError"}
    assert not any(mechanism["handled"] for mechanism in errors.values())
    assert errors["ExceptionGroup"]["is_exception_group"]
    root = errors["ExceptionGroup"]["exception_id"]
    assert errors["KeyError"]["parent_id"] == errors["OSError"]["parent_id"] == root


async def test_error_that_prevents_the_start_is_reported(receiver: Receiver) -> None:
    settings = settings_for(
        "postgresql://app:hunter2@db/app?colour=red", sentry_dsn=dsn_of(receiver.address)
    )
    with pytest.raises(ValueError, match="colour"):
        async with running(create_app(settings)):
            pass
    (event,) = events(receiver)
    assert event["transaction"] == "start"
    assert "colour" in event["exception"]["values"][0]["value"]
    assert b"hunter2" not in receiver.received[0].body


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
            assert httpx.post(f"{url}/boom/x", timeout=1).status_code == 500
        service.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert service.wait() == 0
        assert time.monotonic() - started < FLUSH_SECONDS + 10  # on a busy machine
        assert service.stderr == ""
        assert service.lines


@pytest.mark.parametrize("reason", ["network", "status_403"])
async def test_lost_reports_are_logged_once_a_minute(
    database_url: str, receiver: Receiver, lines: Lines, reason: str
) -> None:
    receiver.status = 403  # the key is wrong
    address = "127.0.0.1:1" if reason == "network" else receiver.address
    app = failing(create_app(settings_for(database_url, sentry_dsn=dsn_of(address))))
    async with running(app) as client:
        for _ in range(3):
            assert (await client.get("/boom/x")).status_code == 500
    warnings = [line for line in lines() if line["level"] == "warn"]
    assert [
        line["reason"] for line in warnings if line["message"].startswith("reports are lost")
    ] == [reason]
    assert not [line for line in warnings if "logger" in line], "a library logs each failure"
    assert len(events(receiver)) == (0 if reason == "network" else 3)


def test_service_without_a_dsn_does_not_import_the_sdk(database_url: str) -> None:
    script = """
import asyncio, sys
from app.main import create_served_app
async def run():
    app = create_served_app()
    async with app.router.lifespan_context(app):
        pass
asyncio.run(run())
sys.exit("sentry_sdk" in sys.modules)
"""
    env = environment(database_url)
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, check=False)
    assert result.returncode == 0


@pytest.mark.parametrize(
    "dsn",
    ["sentry.example.com", "https://sentry.example.com/42", "https://key@/42", "https://key@host/"],
)
def test_invalid_dsn_is_refused_by_the_settings(database_url: str, dsn: str) -> None:
    with pytest.raises(ValidationError, match=r"must begin with|invalid URL after"):
        settings_for(database_url, sentry_dsn=dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "https://key@o42.ingest.de.sentry.io/4507",
        "http://key:hunter2@sentry.example.com:9000/behind/a-path/42",
    ],
)
def test_dsn_that_the_sdk_accepts_is_accepted_by_the_settings(database_url: str, dsn: str) -> None:
    assert Dsn(dsn).project_id in {"42", "4507"}
    settings_for(database_url, sentry_dsn=dsn)


async def test_application_that_is_opened_twice_reports_each_error_once(
    settings: Settings, database_url: str, receiver: Receiver
) -> None:
    app = failing(create_app(settings_for(database_url, sentry_dsn=dsn_of(receiver.address))))
    for _ in range(2):
        async with running(app) as client:
            await client.get("/boom/x")
    async with running(failing(create_app(settings))) as client:
        await client.get("/boom/x")
    assert len(events(receiver)) == 2
