"""Many clients that send their request bodies slowly to a server process."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import httpx

from processes import HANG_SECONDS, Service, append_to_main, environment

SLOW_CLIENTS = 200  # one half sends to a route, the other half to an unknown path
PAUSE_SECONDS = 0.3  # between two bytes of a body
# Appended to a copy of main.py: a route that reads a body.
READING = """

_create_app = create_app


def create_app(settings):
    app = _create_app(settings)

    @app.post("/_test/read")
    async def read(body: dict[str, str]) -> int:
        return len(body)

    return app
"""
HEAD = (
    "POST {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow\r\n"
    "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{"
)


async def send_slowly(port: int, path: str) -> tuple[int, bytes, str]:
    """Send one byte at a time until the server closes the connection.

    Returns:
        Status, head and problem title of the response.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send_bytes() -> None:
        writer.write(HEAD.format(path=path).encode())
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            writer.write(b"x")

    sending = asyncio.create_task(send_bytes())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(f[16:]) for f in head.split(b"\r\n") if f.startswith(b"content-length: "))
        body = json.loads(await reader.readexactly(length))
        with suppress(ConnectionError):  # a byte arrived after the server had closed
            assert await reader.read() == b""
        return int(head.split()[1]), head, body["title"]
    finally:
        sending.cancel()
        writer.close()


async def test_slow_bodies_time_out_while_other_requests_are_served(
    database_url: str, source: Path
) -> None:
    env = {**append_to_main(source, READING), "REQUEST_BODY_TIMEOUT_SECONDS": "2"}
    with Service(["app", "serve"], environment(database_url, **env)) as service:
        url = await asyncio.to_thread(service.wait_until_ready)
        port = int(url.rpartition(":")[2])
        paths = ["/_test/read", "/_test/nowhere"] * (SLOW_CLIENTS // 2)
        async with asyncio.timeout(HANG_SECONDS), asyncio.TaskGroup() as group:
            slow = [group.create_task(send_slowly(port, path)) for path in paths]
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                while not all(task.done() for task in slow):
                    assert (await client.get("/health/live")).status_code == 200
                    await asyncio.sleep(0.1)
        responses = [task.result() for task in slow]
        assert [(status, title) for status, _, title in responses] == [
            (408, "Request Timeout"),
            (404, "Not Found"),
        ] * (SLOW_CLIENTS // 2)
        assert all(b"\r\nconnection: close\r\n" in head for _, head, _ in responses)
        assert service.stderr == ""
        logged = [line for line in service.lines if line.get("request_id") == "slow"]
        assert {line["message"] for line in logged} == {"request"}
        assert len(logged) == SLOW_CLIENTS
