"""Proxies between the service and a server: one delays bytes, one counts round trips."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from app.db.url import parse_postgres_url

CHUNK_BYTES = 65536
HEADER_BYTES = 5  # of a message: its type, and its length without the type
READY_FOR_QUERY = b"Z"  # ends the response to the messages of one round trip
PARAMETER_DESCRIPTION = b"t"  # the response to Prepare, which the driver awaits before it executes

Read = Callable[[], Awaitable[bytes]]  # returns b"" at the end
Connect = Callable[[], Awaitable[tuple[StreamReader, StreamWriter]]]


class DelayingProxy:
    """A proxy that forwards bytes in order, each after a fixed delay.

    The TCP handshake is not delayed: the kernel accepts connections before the proxy can wait.
    """

    def __init__(self, connect: Connect, *, delay_seconds: float = 0.0) -> None:
        self._connect = connect
        self._delay_seconds = delay_seconds  # in each direction: half of a round trip
        self._open: set[StreamWriter] = set()
        self._serving: set[asyncio.Task[object]] = set()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._open.add(writer)
        responses, requests = await self._connect()
        self._open.add(requests)
        try:
            async with asyncio.TaskGroup() as group:
                for read, to in (
                    (lambda: reader.read(CHUNK_BYTES), requests),
                    (lambda: self.read_response(responses), writer),
                ):
                    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                    group.create_task(_receive(read, queue))
                    group.create_task(self._deliver(queue, to))
        except* ConnectionError:
            pass  # one side has closed its connection
        finally:
            requests.close()
            writer.close()
            self._serving.discard(task)

    async def read_response(self, responses: StreamReader) -> bytes:
        return await responses.read(CHUNK_BYTES)

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]], to: StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            arrived, chunk = await queue.get()
            await asyncio.sleep(arrived + self._delay_seconds - loop.time())
            if not chunk:
                break
            to.write(chunk)
        to.close()

    def close(self) -> None:
        """Close the open connections."""
        for writer in self._open:
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listen on a free port of this machine, and yield it."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self.close()
            if self._serving:
                await asyncio.wait(self._serving)


async def _receive(read: Read, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    while chunk := await read():
        queue.put_nowait((loop.time(), chunk))
    queue.put_nowait((loop.time(), b""))


class CountingProxy(DelayingProxy):
    """A proxy that counts the round trips to PostgreSQL.

    Attributes:
        round_trips: complete responses since a test set it to 0.
    """

    def __init__(self, database_url: str, *, delay_seconds: float = 0.0) -> None:
        super().__init__(self._connect_to_postgres, delay_seconds=delay_seconds)
        self._target = parse_postgres_url(database_url).url
        self.round_trips = 0

    def url(self, port: int) -> str:
        proxied = self._target.set(host="127.0.0.1", port=port, query={"sslmode": "disable"})
        return proxied.set(drivername="postgresql").render_as_string(hide_password=False)

    async def read_response(self, responses: StreamReader) -> bytes:
        try:
            header = await responses.readexactly(HEADER_BYTES)
            length = int.from_bytes(header[1:]) - (HEADER_BYTES - 1)
            message = header + await responses.readexactly(length)
        except asyncio.IncompleteReadError:
            return b""
        self.round_trips += header[:1] in {READY_FOR_QUERY, PARAMETER_DESCRIPTION}
        return message

    async def _connect_to_postgres(self) -> tuple[StreamReader, StreamWriter]:
        port = self._target.port or 5432
        host = self._target.host or ""
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


@asynccontextmanager
async def open_counting_proxy(
    database_url: str, *, delay_seconds: float = 0.0
) -> AsyncIterator[tuple[CountingProxy, str]]:
    """Yield a proxy, and the URL of the database through it."""
    proxy = CountingProxy(database_url, delay_seconds=delay_seconds)
    async with proxy.listening() as port:
        yield proxy, proxy.url(port)
