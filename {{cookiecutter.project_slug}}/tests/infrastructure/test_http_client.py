"""Calls to other services."""

from collections.abc import AsyncIterator

import httpx
import pytest
from structlog.contextvars import bound_contextvars

from app.http_client import ResponseTooLarge, open_http_client
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


async def test_response_beyond_the_limit_is_refused_and_a_smaller_one_accepted() -> None:
    class Stream(httpx.AsyncByteStream):
        """Chunks without a length in the head."""

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"x" * 10

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return httpx.Response(200, stream=Stream())

    transport = httpx.MockTransport(answer)
    async with open_http_client(transport=transport, max_response_bytes=100) as client:
        assert len((await client.get("http://orders/")).content) == 100
    async with open_http_client(transport=transport, max_response_bytes=99) as client:
        with pytest.raises(ResponseTooLarge):
            await client.get("http://orders/")


async def test_compressed_response_is_refused_if_there_is_a_limit() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=b"")

    transport = httpx.MockTransport(answer)
    async with open_http_client(transport=transport, max_response_bytes=100) as client:
        with pytest.raises(ResponseTooLarge):
            await client.get("http://orders/")
