from app.http_client import open_http_client
from app.logging.context import LogContext
from processes import Receiver


async def test_request_to_another_service_carries_the_request_id() -> None:
    with Receiver() as receiver:
        async with open_http_client() as client:
            with LogContext(request_id="of-this-test"):
                await client.get(f"http://{receiver.address}/")
            await client.get(f"http://{receiver.address}/")
    request_ids = [request.headers["X-Request-Id"] for request in receiver.received]
    assert request_ids == ["of-this-test", None]


async def test_every_timeout_has_the_given_limit() -> None:
    async with open_http_client(timeout_seconds=2) as client:
        assert set(client.timeout.as_dict().values()) == {2}
