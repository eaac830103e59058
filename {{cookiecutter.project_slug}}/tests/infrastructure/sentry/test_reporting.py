"""Error reports, received by a server that speaks Sentry's protocol."""

import pytest
import sentry_sdk
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from sentry_sdk.utils import Dsn

from app.errors import Conflict
from app.main import create_app
from app.settings import Settings
from conftest import Lines, running, settings_for
from error_receiver import dsn_of, events, receiver
from processes import Receiver

__all__ = ["receiver"]  # a fixture


def failing(app: FastAPI) -> FastAPI:
    @app.get("/_test/boom/{word}")
    async def boom(word: str) -> None:
        raise Conflict if word == "handled" else RuntimeError(word)

    return app


async def test_handled_error_is_not_reported(database_url: str, receiver: Receiver) -> None:
    app = failing(create_app(settings_for(database_url, sentry_dsn=dsn_of(receiver.address))))
    async with running(app) as client:
        assert (await client.get("/_test/boom/handled")).status_code == 409
        assert (await client.get("/_test/nowhere")).status_code == 404
        assert (await client.get("/_test/boom/one")).status_code == 500
        assert (await client.get("/_test/boom/two")).status_code == 500
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

    @app.get("/_test/group")
    async def group() -> None:
        raise ExceptionGroup("several", [KeyError("one"), OSError("two")])

    async with running(app) as client:
        await client.get("/_test/group")
    (event,) = events(receiver)
    errors = {error["type"]: error["mechanism"] for error in event["exception"]["values"]}
    assert errors.keys() == {"ExceptionGroup", "KeyError", "OSError"}
    assert not any(mechanism["handled"] for mechanism in errors.values())
    assert errors["ExceptionGroup"]["is_exception_group"]
    root = errors["ExceptionGroup"]["exception_id"]
    assert errors["KeyError"]["parent_id"] == errors["OSError"]["parent_id"] == root


async def test_error_that_prevents_the_start_is_reported(receiver: Receiver) -> None:
    settings = settings_for("postgresql://db/app", sentry_dsn=dsn_of(receiver.address))
    invalid = SecretStr("postgresql://app:hunter2@db/app?colour=red")
    settings = settings.model_copy(update={"database_url": invalid})
    with pytest.raises(ValueError, match="colour"):
        async with running(create_app(settings)):
            pass
    (event,) = events(receiver)
    assert event["transaction"] == "start"
    assert "colour" in event["exception"]["values"][0]["value"]
    assert b"hunter2" not in receiver.received[0].body


@pytest.mark.parametrize("reason", ["network", "status_403"])
async def test_lost_reports_are_logged_once_a_minute(
    database_url: str, receiver: Receiver, lines: Lines, reason: str
) -> None:
    receiver.status = 403  # the key is wrong
    address = "127.0.0.1:1" if reason == "network" else receiver.address
    app = failing(create_app(settings_for(database_url, sentry_dsn=dsn_of(address))))
    async with running(app) as client:
        for _ in range(3):
            assert (await client.get("/_test/boom/x")).status_code == 500
    warnings = [line for line in lines() if line["level"] == "warn"]
    assert [
        line["reason"] for line in warnings if line["message"].startswith("reports are lost")
    ] == [reason]
    assert not [line for line in warnings if "logger" in line], "a library logs each failure"
    assert len(events(receiver)) == (0 if reason == "network" else 3)


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
            await client.get("/_test/boom/x")
    async with running(failing(create_app(settings))) as client:
        await client.get("/_test/boom/x")
    assert len(events(receiver)) == 2
