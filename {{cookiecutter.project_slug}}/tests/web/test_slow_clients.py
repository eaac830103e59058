"""Clients that send a request's body slowly, by the hundred, to a server process."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import httpx

from processes import APP, Service, environment

SLOW_CLIENTS = 200  # half of them send to a route, half to a path that no route has
PAUSE_SECONDS = 0.3  # between two bytes of a body
READ = """
    @app.post("/read")
    async def read(body: dict[str, str]) -> int:
        return len(body)

    include_routers(app, routers)"""
HEAD = (
    "POST {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: slow\r\n"
    "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{"
)


async def send_slowly(port: int, path: str) -> tuple[int, bytes, str]:
    """Send a byte at a time until the server ends the connection.

    Returns:
        The answer's status, its fields, and its problem's title.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def drip() -> None:
        writer.write(HEAD.format(path=path).encode())
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            writer.write(b"x")

    dripping = asyncio.create_task(drip())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(f[16:]) for f in head.split(b"\r\n") if f.startswith(b"content-length: "))
        body = json.loads(await reader.readexactly(length))
        with suppress(ConnectionError):  # a byte was on its way when the server closed
            assert await reader.read() == b""
        return int(head.split()[1]), head, body["title"]
    finally:
        dripping.cancel()
        writer.close()


async def test_slow_bodies_are_ended_while_others_are_served(
    database_url: str, source: Path
) -> None:
    main = source / "app" / "main.py"
    main.write_text(main.read_text().replace("\n    include_routers(app, routers)", READ))
    env = {"PYTHONPATH": str(source), "REQUEST_BODY_TIMEOUT_SECONDS": "2"}
    with Service([*APP, "serve"], environment(database_url, **env)) as service:
        url = await asyncio.to_thread(service.wait_until_ready)
        port = int(url.rpartition(":")[2])
        paths = ["/read", "/nowhere"] * (SLOW_CLIENTS // 2)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            slow = [group.create_task(send_slowly(port, path)) for path in paths]
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                while not all(task.done() for task in slow):
                    assert (await client.get("/health/live")).status_code == 200
                    await asyncio.sleep(0.1)
        answers = [task.result() for task in slow]
        assert [(status, title) for status, _, title in answers] == [
            (408, "Request Timeout"),
            (404, "Not Found"),
        ] * (SLOW_CLIENTS // 2)
        assert all(b"\r\nconnection: close\r\n" in head for _, head, _ in answers)
        assert service.stderr == ""
        logged = [line for line in service.lines if line.get("request_id") == "slow"]
        assert {line["message"] for line in logged} == {"request"}
        assert len(logged) == SLOW_CLIENTS
