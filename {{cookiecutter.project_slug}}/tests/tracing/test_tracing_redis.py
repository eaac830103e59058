"""Redis commands in traces."""

import os

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from test_tracing import collector, spans

from app.main import create_app
from conftest import running, settings_for
from processes import Receiver

__all__ = ["collector"]  # a fixture

pytestmark = pytest.mark.skipif(
    "TEST_REDIS_URL" not in os.environ, reason="there is no embedded Valkey here: set REDIS_URL"
)


def app_with_commands(database_url: str, collector: Receiver) -> FastAPI:
    settings = settings_for(
        database_url,
        otel_exporter_otlp_endpoint=f"http://{collector.address}",
        trace_ratio=1.0,
    )
    app = create_app(settings)

    @app.get("/commands")
    async def commands() -> None:
        async with Redis.from_url(os.environ["TEST_REDIS_URL"]) as redis:
            await redis.get("of-a-key")
            pipeline = redis.pipeline()
            pipeline.get("of-a-key")
            await pipeline.execute()

    return app


async def test_commands_are_part_of_the_request_without_their_keys(
    database_url: str, collector: Receiver
) -> None:
    async with running(app_with_commands(database_url, collector)) as client:
        await client.get("/commands")
        await client.get("/health/ready")
    found = {span["name"]: span for span in spans(collector)}
    request = found["GET /commands"]
    for name in ("GET", "PIPELINE"):
        assert found[name]["parent"] == request["id"]
        assert found[name]["attributes"] == {"db.system.name": "redis", "db.operation.name": name}
    assert "SET" not in found, "no probe is part of a trace"
    assert not any(b"of-a-key" in request.body for request in collector.received)


async def test_when_the_service_ends_commands_are_as_they_were(
    database_url: str, collector: Receiver
) -> None:
    before = Redis.execute_command
    async with running(app_with_commands(database_url, collector)):
        assert Redis.execute_command is not before
    assert Redis.execute_command is before
