"""Calls to other services."""

import httpx
import pytest
from structlog.contextvars import bound_contextvars

from app.http_client import open_http_client
from processes import Receiver


async def test_request_to_another_service_carries_the_request_id() -> None:
    with Receiver() as receiver:
        async with open_http_client() as client:
            with bound_contextvars(request_id="of-this-test"):
                await client.get(f"http://{receiver.address}/")
            await client.get(f"http://{receiver.address}/")
    request_ids = [request.headers["X-Request-Id"] for request in receiver.received]
    assert request_ids == ["of-this-test", None]


async def test_every_timeout_has_the_given_limit() -> None:
    async with open_http_client(timeout_seconds=2) as client:
        assert set(client.timeout.as_dict().values()) == {2}


async def test_calls_through_a_given_transport_carry_the_request_id() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=request.headers["X-Request-Id"])

    async with open_http_client(transport=httpx.MockTransport(answer)) as client:
        with bound_contextvars(request_id="of-this-test"):
            assert (await client.get("http://orders/")).text == "of-this-test"


async def test_http_client_by_default_uses_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Receiver() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        async with open_http_client() as client:
            await client.get("http://orders.example.com/7")
    assert proxy.received[0].path == "http://orders.example.com/7"
