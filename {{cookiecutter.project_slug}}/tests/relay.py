"""Between the service and PostgreSQL: counts how often the one waits for the other."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.engine import parse_postgres_url

HEADER_BYTES = 5  # of a message: its kind, and its length without the kind
READY_FOR_QUERY = b"Z"  # ends the answer to whatever was asked at once
PARAMETER_DESCRIPTION = b"t"  # answers a prepare, for which the driver waits before it executes


class Relay:
    """Passes everything on.

    Attributes:
        round_trips: complete answers, since somebody last set it to 0.
    """

    def __init__(self, database_url: str) -> None:
        self._target = parse_postgres_url(database_url).url
        self.round_trips = 0
        self._open: set[StreamWriter] = set()

    def url(self, port: int) -> str:
        there = self._target.set(host="127.0.0.1", port=port, query={"sslmode": "disable"})
        return there.set(drivername="postgresql").render_as_string(hide_password=False)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        if folder := self._target.query.get("host"):
            there = asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{self._target.port or 5432}")
        else:
            there = asyncio.open_connection(self._target.host, self._target.port or 5432)
        answers, requests = await there
        self._open |= {requests, writer}
        try:
            await asyncio.gather(_copy(reader, requests), self._copy_answers(answers, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # either side has ended
        finally:
            requests.close()
            writer.close()

    def close(self) -> None:
        """End what is still connected."""
        for writer in self._open:
            writer.close()

    async def _copy_answers(self, answers: StreamReader, writer: StreamWriter) -> None:
        while True:
            header = await answers.readexactly(HEADER_BYTES)
            length = int.from_bytes(header[1:]) - (HEADER_BYTES - 1)
            writer.write(header + await answers.readexactly(length))
            self.round_trips += header[:1] in {READY_FOR_QUERY, PARAMETER_DESCRIPTION}


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
    writer.close()


@asynccontextmanager
async def open_relay(database_url: str) -> AsyncIterator[tuple[Relay, str]]:
    """A relay, and the database's URL through it."""
    relay = Relay(database_url)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    async with server:
        yield relay, relay.url(server.sockets[0].getsockname()[1])
        relay.close()
