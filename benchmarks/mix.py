"""Mixed load on a service with every option. Each response must have its expected status.

Each connection repeats a visit. A visit calls each route at least once.
"""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlencode

LONGEST_ANSWER_SECONDS = 30
PASSWORD = "of-this-load-alone"  # noqa: S105 - of accounts that the load makes
WEBHOOK_KEY = b"k" * 32
DIMENSIONS = 1536
SETTINGS = {
    "AUTH_KEYS": "mix:" + "k" * 43,
    "RATE_LIMIT": "1000000/second",
    "TRACE_RATIO": "0.1",
    "WEBHOOK_SECRETS": f"shop:whsec_{base64.b64encode(WEBHOOK_KEY).decode()}",
}
_numbers = itertools.count()
_rows = random.Random(1)  # noqa: S311 - embeddings, no secret


class UnexpectedAnswerError(Exception):
    """An answer has another status than the expected one."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Collector(BaseHTTPRequestHandler):
    """Accept every POST, as an OpenTelemetry collector and Sentry do."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write no line for a request."""

    @staticmethod
    def server() -> ThreadingHTTPServer:
        return ThreadingHTTPServer(("127.0.0.1", 0), Collector)


class Connection:
    """A client with one keep-alive connection, and a new one when the service closes it.

    Args:
        port: of the service, on this machine.
        pause_seconds: at least, between the starts of two requests.
    """

    def __init__(self, port: int, pause_seconds: float) -> None:
        self._port = port
        self._pause_seconds = pause_seconds
        self._next = 0.0
        self.answers = 0

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def _close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, expected: int, request: str, body: object = None, **headers: str) -> Answer:
        """Send one request.

        Args:
            expected: the status.
            request: method and path, as in "GET /health".
            body: bytes, or a value that is sent as JSON.
            headers: names with _ for -.

        Raises:
            UnexpectedAnswerError: the answer has another status.
        """
        await asyncio.sleep(self._next - time.monotonic())
        self._next = max(self._next, time.monotonic()) + self._pause_seconds
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
        lines = {"content_type": "application/json", "host": "localhost", **headers}
        lines["content_length"] = str(len(data))
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        self._writer.write(f"{request} HTTP/1.1\r\n{head}\r\n".encode() + data)
        async with asyncio.timeout(LONGEST_ANSWER_SECONDS):
            status, *fields = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            answered = dict(field.lower().split(": ", 1) for field in fields if field)
            received = await self._reader.readexactly(int(answered.get("content-length", 0)))
        self.answers += 1
        if answered.get("connection") == "close":  # as after a body that is too large
            await self._close()
            await self._open()
        answer = Answer(int(status.split()[1]), answered, received)
        if answer.status != expected:
            raise UnexpectedAnswerError(f"{request}: {answer.status}, not {expected}: {received!r}")
        return answer


Visit = Callable[[Connection], Awaitable[object]]


async def run(
    port: int, visit: Visit, *, connections: int, seconds: float, rate: float | None = None
) -> int:
    """Visit a service for some seconds.

    Args:
        port: of the service, on this machine.
        visit: called again and again by each connection.
        connections: that make visits at the same time.
        seconds: after which no further visit begins.
        rate: requests a second; without it, as many as the service answers.

    Returns:
        The number of answers.

    Raises:
        ExceptionGroup: of UnexpectedAnswerError, and of broken connections.
    """
    end = time.monotonic() + seconds

    async def client() -> int:
        async with Connection(port, connections / rate if rate else 0) as connection:
            while time.monotonic() < end:
                await visit(connection)
            return connection.answers

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client()) for _ in range(connections)]
    return sum(task.result() for task in clients)


async def visit_everything(connection: Connection) -> None:
    """Call the routes of every option."""
    ask = connection.ask
    tokens = await log_in(connection)
    account = {"authorization": f"Bearer {tokens['access_token']}"}
    await ask(200, "GET /accounts/me", **account)
    await ask(401, "POST /bookmarks", {})
    await visit_bookmarks(connection, **account)
    await search_passages(connection, **account)
    await receive_webhooks(connection)
    await ask(200, "GET /metrics")
    session = {"refresh_token": tokens["refresh_token"]}
    form = {"content_type": "application/x-www-form-urlencoded"}
    body = urlencode({"grant_type": "refresh_token", **session}).encode()
    renewed = (await ask(200, "POST /accounts/login", body, **form)).json()
    await ask(204, "POST /accounts/logout", {"refresh_token": renewed["refresh_token"]})
    await ask(401, "POST /accounts/login", body, **form)  # the session has ended


async def visit_bookmarks(connection: Connection, **account: str) -> None:
    """Call health checks and the routes of bookmarks, also with errors."""
    ask = connection.ask
    for path in ("/health", "/health/live", "/health/ready", "/health/detailed"):
        await ask(200, f"GET {path}")
    new = {"url": f"https://example.com/{uuid.uuid4()}", "title": "Load"}
    created = await ask(201, "POST /bookmarks", new, **account)
    await ask(409, "POST /bookmarks", new, **account)
    await ask(422, "POST /bookmarks", {"url": "nowhere"}, **account)
    await ask(413, "POST /bookmarks", b"x" * 1_100_000, **account)
    path, etag = created.headers["location"], created.headers["etag"]
    for _ in range(5):  # the first from the database, then from the cache
        await ask(200, f"GET {path}")
    page = (await ask(200, "GET /bookmarks?limit=10")).json()
    if page["next_cursor"]:
        await ask(200, f"GET /bookmarks?limit=10&cursor={page['next_cursor']}")
    changed = await ask(200, f"PUT {path}", {**new, "title": "More"}, **account, if_match=etag)
    await ask(412, f"PUT {path}", new, **account, if_match=etag)
    await ask(428, f"DELETE {path}", **account)
    await ask(204, f"DELETE {path}", **account, if_match=changed.headers["etag"])
    await ask(404, f"GET {path}")
    await ask(404, f"GET /{uuid.uuid4()}")
    await ask(405, "PATCH /bookmarks")
    await ask(422, "GET /bookmarks?limit=0")
    await ask(422, "GET /bookmarks?cursor=nowhere")


async def log_in(connection: Connection) -> dict[str, str]:
    """Register, log in with a wrong and with the right password, and return the tokens."""
    email = f"{uuid.uuid4().hex}@navy.example"
    new = {"email": email, "password": PASSWORD}
    await connection.ask(201, "POST /accounts", new, **_another_client())
    form = {"content_type": "application/x-www-form-urlencoded"}
    for expected, password in ((401, "wrong"), (200, PASSWORD)):
        body = urlencode({"username": email, "password": password}).encode()
        answer = await connection.ask(
            expected, "POST /accounts/login", body, **form, **_another_client()
        )
    tokens: dict[str, str] = answer.json()
    return tokens


async def enqueue_jobs(connection: Connection) -> None:
    """Create bookmarks, each with a job, and delete them."""
    account = {"authorization": f"Bearer {(await log_in(connection))['access_token']}"}
    created = []
    for _ in range(100):
        new = {"url": f"https://example.com/{uuid.uuid4()}", "title": "Load"}
        created.append((await connection.ask(201, "POST /bookmarks", new, **account)).headers)
    for headers in created:
        path, etag = headers["location"], headers["etag"]
        await connection.ask(204, f"DELETE {path}", **account, if_match=etag)


async def search_passages(connection: Connection, **account: str) -> None:
    ask = connection.ask
    embedding = [_rows.uniform(-1, 1) for _ in range(DIMENSIONS)]
    created = await ask(201, "POST /passages", {"text": "Load", "embedding": embedding}, **account)
    await ask(200, "POST /passages/nearest", {"embedding": embedding, "limit": 3})
    await ask(200, f"GET {created.headers['location']}")
    await ask(204, f"DELETE {created.headers['location']}", **account)


async def receive_webhooks(connection: Connection) -> None:
    """Send a delivery twice, and one with a wrong signature."""
    now, delivery, body = str(int(time.time())), uuid.uuid4().hex, b'{"type": "load"}'
    signed = b".".join([delivery.encode(), now.encode(), body])
    digest = hmac.digest(WEBHOOK_KEY, signed, hashlib.sha256)
    headers = {"webhook_id": delivery, "webhook_timestamp": now}
    signature = f"v1,{base64.b64encode(digest).decode()}"
    for _ in range(2):
        await connection.ask(
            202, "POST /webhooks/shop", body, **headers, webhook_signature=signature
        )
    await connection.ask(401, "POST /webhooks/shop", body, **headers, webhook_signature="v1,x")


def _another_client() -> dict[str, str]:
    """Return the header of a new client: a client may log in ten times a minute."""
    number = next(_numbers) % 2**24
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return {"x_forwarded_for": address}
