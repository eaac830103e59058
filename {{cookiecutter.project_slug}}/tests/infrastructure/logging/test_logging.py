import json
import logging
import time
import warnings
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from fastapi import APIRouter, BackgroundTasks
from httpx import AsyncClient
from structlog.contextvars import bound_contextvars

from app.logging.redaction import REDACTED
from app.logging.setup import configure_logs
from app.settings import Settings
from conftest import Lines, running, settings_for
from small_app import create_small_app


def test_log_line_has_the_keys_that_platforms_read(lines: Lines) -> None:
    structlog.get_logger().warning("stock is low", left=3)
    (line,) = lines()
    assert list(line)[:3] == ["timestamp", "level", "message"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["message"], line["left"]) == ("warn", "stock is low", 3)


@pytest.mark.parametrize("name", ["uvicorn.error", "sqlalchemy.engine", "alembic", "asyncio", "x"])
def test_standard_library_logger_writes_the_same_lines(lines: Lines, name: str) -> None:
    logging.getLogger(name).warning("slow: %d ms", 70)
    (line,) = lines()
    assert (line["message"], line["logger"], line["level"]) == ("slow: 70 ms", name, "warn")


def test_python_warning_is_logged(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("that is deprecated", DeprecationWarning, stacklevel=1)
    (line,) = lines()
    assert "that is deprecated" in line["message"]


def test_traceback_is_one_line(lines: Lines) -> None:
    try:
        raise ValueError("no\nway")
    except ValueError:
        structlog.get_logger().exception("it failed")
        logging.getLogger("library").exception("it failed there")
    own, library = lines()
    for line in (own, library):
        assert line["level"] == "error"
        assert "Traceback" in line["exception"]
        assert "ValueError: no\nway" in line["exception"]


def test_lines_below_the_level_are_not_written(lines: Lines) -> None:
    structlog.get_logger().debug("quiet")
    logging.getLogger("library").debug("quiet")
    assert lines() == []


SECRETS = [
    {"password": "hunter2"},
    {"user": {"api_key": "hunter2", "list": [{"Authorization": "hunter2"}]}},
    {"url": "postgresql://app:hunter2@db/app"},
    {"url": "amqp://:hunter2@queue:5672/x"},
    {"header": "Bearer hunter2"},
    {"note": "sent to hunter2@example.com"},
    {"jwt": "eyJhbGciOiJIUzI1NiJ9.hunter2.c2lnbmF0dXJl"},
    {"Set-Cookie": "session=hunter2"},
    {"headers": {"X-Api-Key": "hunter2"}},
    {"headers": [(b"cookie", b"id=hunter2")]},
]


@pytest.mark.parametrize("values", SECRETS)
def test_secrets_at_any_depth_are_redacted(lines: Lines, values: dict[str, Any]) -> None:
    structlog.get_logger().info("seen", **values)
    structlog.get_logger().bind(**values).info("bound")
    structlog.get_logger().new(component="child").bind(child=values).info("grandchild")
    seen = lines()
    assert len(seen) == 3
    for line in seen:
        assert "hunter2" not in json.dumps(line)
        assert REDACTED in json.dumps(line)


def test_secrets_in_child_loggers_and_exceptions_are_redacted(lines: Lines) -> None:
    child = logging.getLogger("library.deep.child")
    child.error("cannot reach %s", "postgresql://app:hunter2@db/app")
    try:
        try:
            raise ConnectionError("postgresql://app:hunter2@db/app")
        except ConnectionError as error:
            raise RuntimeError("Authorization: Bearer hunter2") from error
    except RuntimeError:
        child.exception("failed for hunter2@example.com")
        structlog.get_logger().exception("failed with Bearer hunter2")
    seen = lines()
    assert len(seen) == 3
    assert all("hunter2" not in json.dumps(line) for line in seen)


@pytest.mark.parametrize(
    "text",
    [
        "BEARER hunter2",
        "login with password=hunter2 failed",
        "GET /x?access_token=hunter2&y=1",
        "Cookie: session=hunter2",
        '{"password": "hunter2"}',
        "{'password': 'a phrase of hunter2'}",
        r'{"password": "a \"phrase\" of hunter2"}',
        r'"{\"password\": \"a phrase of hunter2\"}"',
        'b\'{"secret_key": "hunter2"}\'',
        "{'token': b'hunter2'}",
        "x-api-key: hunter2",
        "Authorization: Token hunter2",
        "Cookie: theme=dark; id=hunter2",
        "postgres://u:p@ss/hunter2@host/db",
    ],
)
def test_secrets_inside_a_text_are_redacted(lines: Lines, text: str) -> None:
    structlog.get_logger().info(text, note=text)
    assert "hunter2" not in json.dumps(lines())


@pytest.mark.parametrize(
    "text",
    [
        "a" * 60_000 + "/@",
        "eyJ-" * 15_000,
        "://a:" * 12_000 + "@",
        """token="token='""" * 4000,
        "token=\\" * 8000,
    ],
)
def test_redaction_of_a_long_text_that_nearly_matches_is_fast(lines: Lines, text: str) -> None:
    """A regular expression with quadratic run time would take over 10 s here."""
    started = time.process_time()
    structlog.get_logger().info("long", text=text)
    assert time.process_time() - started < 5
    assert len(lines()) == 1


def test_line_with_invalid_arguments_is_still_logged(lines: Lines) -> None:
    logging.getLogger("library").log(25, "between two levels")
    (handler,) = (h for h in logging.root.handlers if type(h).__module__ == "app.logging.setup")
    handler.handle(logging.LogRecord("library", 30, "file", 1, "%d", ("no number",), None))
    structlog.get_logger().info("odd", surrogate="\ud800", large=2**70, message="not the message")
    between, wrong, odd = lines()
    assert between["level"] == "info"
    assert "no number" in wrong["message"]
    assert (odd["message"], odd["large"]) == ("odd", 2**70)


def test_value_that_json_cannot_encode_is_logged_as_text(lines: Lines) -> None:
    structlog.get_logger().info("odd", what=object, when=None, many={1: {2}})
    (line,) = lines()
    assert "object" in line["what"]
    assert line["many"] == {"1": [2]}


def test_log_context_is_on_the_lines_inside_it_only(lines: Lines) -> None:
    with bound_contextvars(request_id="r1"):
        structlog.get_logger().info("own")
        logging.getLogger("library").info("library")
    structlog.get_logger().info("after")
    own, library, after = lines()
    assert own["request_id"] == library["request_id"] == "r1"
    assert "request_id" not in after


async def test_route_of_a_router_with_prefixes_is_logged_with_its_prefix(
    lines: Lines, settings: Settings
) -> None:
    router = APIRouter()

    @router.get("/things/{number}")
    async def thing(number: int) -> int:
        return number

    app = create_small_app(settings)
    for prefix in ("/_test/v1", "/_test/v2"):
        app.include_router(router, prefix=prefix)
    async with running(app) as client:
        for prefix in ("/_test/v1", "/_test/v2"):
            await client.get(f"{prefix}/things/1")
    routes = [line["route"] for line in lines() if line["message"] == "request"]
    assert routes == ["/_test/v1/things/{number}", "/_test/v2/things/{number}"]


async def test_request_is_logged_with_route_status_and_id(lines: Lines, settings: Settings) -> None:
    app = create_small_app(settings)

    @app.get("/_test/things/{number}")
    async def thing(number: int) -> int:
        return number

    async with running(app) as client:
        await client.get("/_test/things/7", headers={"X-Request-Id": "r2"})
        await client.get("/_test/nowhere/at/all?token=hunter2")
    found, missing = lines()
    assert found["message"] == "request"
    assert (found["method"], found["path"], found["status"]) == ("GET", "/_test/things/7", 200)
    assert found["route"] == "/_test/things/{number}"
    assert found["request_id"] == "r2"
    assert found["duration_ms"] > 0
    assert found["bytes"] > 0
    assert (missing["route"], missing["path"]) == (None, "/_test/nowhere/at/all")


async def test_logged_duration_excludes_background_tasks(
    settings: Settings, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count()
    monkeypatch.setattr(
        "app.web.middleware.time", SimpleNamespace(perf_counter=lambda: next(clock))
    )
    app = create_small_app(settings)

    @app.get("/_test/things")
    async def things(background: BackgroundTasks) -> None:
        background.add_task(lambda: [next(clock) for _ in range(100)])

    async with running(app) as client:
        await client.get("/_test/things")
    (line,) = lines()
    assert 0 < line["duration_ms"] < 100_000
    assert next(clock) > 100


async def test_successful_probe_is_not_logged_and_a_failed_one_is(
    lines: Lines, service: AsyncClient
) -> None:
    await service.get("/health/live")
    assert lines() == []
    await service.get("/health/nowhere")
    assert [line["status"] for line in lines()] == [404]


async def test_unhandled_exception_is_logged_with_the_request_id(
    settings: Settings, lines: Lines
) -> None:
    app = create_small_app(settings)

    @app.get("/_test/boom")
    async def boom() -> str:
        raise RuntimeError("Bearer hunter2")

    async with running(app) as client:
        await client.get("/_test/boom", headers={"X-Request-Id": "r3"})
    failure, request = lines()
    assert failure["message"] == "unhandled exception"
    assert "Traceback" in failure["exception"]
    assert "hunter2" not in failure["exception"]
    assert failure["request_id"] == request["request_id"] == "r3"
    assert request["status"] == 500


def test_console_format_writes_readable_text(
    database_url: str, lines: Lines, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    del lines  # the fixture restores the handlers
    configure_logs(settings_for(database_url, log_format="console"))
    log = structlog.wrap_logger(None)
    log.info("hello", left=3)
    out, err = capfdbinary.readouterr()
    assert err == b""
    assert b"hello" in out
    assert b"left=3" in out
    assert not out.startswith(b"{")


def test_console_format_escapes_control_characters(
    database_url: str, lines: Lines, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    del lines  # the fixture restores the handlers
    configure_logs(settings_for(database_url, log_format="console"))
    sent = "\x1b]0;title\x07\x9b2J\r"
    try:
        raise ValueError(sent)
    except ValueError:
        structlog.wrap_logger(None).exception(sent, path=sent, nested={sent: [sent]})
    out = capfdbinary.readouterr().out.decode()
    assert r"\x1b]0;title" in out
    assert "Traceback" in out
    assert all(character.isprintable() for character in out if character != "\n")
