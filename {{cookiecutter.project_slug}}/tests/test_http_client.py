from app.http_client import open_http_client
from app.logging.context import LogContext
from processes import Receiver


async def test_calls_to_other_services_carry_the_request_id() -> None:
    with Receiver() as receiver:
        async with open_http_client() as client:
            with LogContext(request_id="of-this-test"):
                await client.get(f"http://{receiver.address}/")
            await client.get(f"http://{receiver.address}/")
    ids = [request.headers["X-Request-Id"] for request in receiver.received]
    assert ids == ["of-this-test", None]


async def test_every_wait_is_bounded() -> None:
    async with open_http_client(timeout_seconds=2) as client:
        assert set(client.timeout.as_dict().values()) == {2}
