"""Traces of Redis commands."""

import pytest
from fastapi import FastAPI, Request
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.main import create_app
from conftest import running, settings_for
from processes import Receiver
from trace_collector import NOT_SAMPLED, collector, spans

__all__ = ["collector"]  # a fixture

pytestmark = pytest.mark.usefixtures("redis_url")


def app_with_commands(database_url: str, collector: Receiver) -> FastAPI:
    settings = settings_for(
        database_url,
        otel_exporter_otlp_endpoint=f"http://{collector.address}",
        trace_ratio=1.0,
    )
    app = create_app(settings)

    @app.get("/_test/commands")
    async def commands(request: Request) -> bool:
        redis: Redis = request.state.cache.breaker.redis
        return await redis.get("of-a-key") is None

    @app.get("/_test/wrong")
    async def wrong(request: Request) -> None:
        redis: Redis = request.state.cache.breaker.redis
        with pytest.raises(ResponseError, match="of-a-key"):
            await redis.execute_command("NONSENSE", "of-a-key")  # type: ignore[no-untyped-call]  # redis-py has no types here

    return app


async def test_commands_in_a_traced_request_have_spans_without_keys(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_with_commands(database_url, collector)) as client:
        assert (await client.get("/_test/commands")).json() is True
        await client.get("/health/ready")
    found = {span["name"]: span for span in spans(collector)}
    request = found["GET /_test/commands"]
    names = ["GET"]
    names.append("EVALSHA")  # option: rate_limit
    for name in names:
        assert found[name]["parent"] == request["id"]
        assert found[name]["attributes"].items() >= {
            ("db.system.name", "redis"),
            ("db.operation.name", name),
        }
    assert found["GET"]["attributes"].keys() == {"db.system.name", "db.operation.name"}
    assert "SET" not in found, "no probe is part of a trace"
    assert not any(b"of-a-key" in request.body for request in collector.received)


async def test_command_that_fails_has_an_error_type_and_no_message(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_with_commands(database_url, collector)) as client:
        assert (await client.get("/_test/wrong")).status_code == 200
    (span,) = [span for span in spans(collector) if span["name"] == "NONSENSE"]
    assert span["attributes"]["error.type"] == "ResponseError"
    assert span["events"] == 0
    assert not any(b"of-a-key" in request.body for request in collector.received)


async def test_commands_in_an_unsampled_request_leave_no_span(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_with_commands(database_url, collector)) as client:
        answer = await client.get("/_test/commands", headers={"traceparent": NOT_SAMPLED})
    assert answer.json() is True
    assert collector.received == []


async def test_command_outside_of_a_trace_leaves_no_span(
    database_url: str, collector: Receiver
) -> None:
    app = app_with_commands(database_url, collector)
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        assert await state["cache"].breaker.redis.get("of-a-key") is None
    assert collector.received == []


async def test_redis_library_in_a_traced_service_is_not_patched(
    database_url: str, collector: Receiver
) -> None:
    before = Redis.execute_command
    async with running(app_with_commands(database_url, collector)):
        assert Redis.execute_command is before
