from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from app.http_client import open_http_client
from app.logs import log_context


class Recorder(BaseHTTPRequestHandler):
    seen: list[str | None]

    def do_GET(self) -> None:
        self.seen.append(self.headers["X-Request-Id"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_calls_to_other_services_carry_the_request_id() -> None:
    Recorder.seen = []
    server = HTTPServer(("127.0.0.1", 0), Recorder)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        async with open_http_client() as client:
            with log_context(request_id="of-this-test"):
                await client.get(f"http://127.0.0.1:{server.server_port}/")
            await client.get(f"http://127.0.0.1:{server.server_port}/")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert Recorder.seen == ["of-this-test", None]


async def test_every_wait_is_bounded() -> None:
    async with open_http_client(timeout_seconds=2) as client:
        assert set(client.timeout.as_dict().values()) == {2}
