"""An SMTP server for tests. It records mails, and replies to commands as a test wants."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default


@dataclass
class SmtpServer:
    """A server and its mails.

    Attributes:
        port: of 127.0.0.1.
        replies: to a command, in place of success.
        mails: that were accepted.
        commands: without their arguments, of all connections.
        tls: offers STARTTLS.
    """

    tls: ssl.SSLContext | None = None
    port: int = 0
    replies: dict[str, str] = field(default_factory=dict)
    mails: list[EmailMessage] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a process that uses this server."""
        return {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(self.port), "SMTP_TLS": "none"}

    @property
    def values(self) -> dict[str, object]:
        """The settings of a service that uses this server."""
        return {name.lower(): value for name, value in self.variables.items()}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        while line := await reader.readline():
            command = line.decode().split()[0].upper()
            self.commands.append(command)
            if reply := self.replies.get(command):
                writer.write(f"{reply}\r\n".encode())
            elif command == "EHLO":
                offer = "AUTH PLAIN" if self.tls is None else "STARTTLS"
                writer.write(f"250-test\r\n250 {offer}\r\n".encode())
            elif command == "STARTTLS" and self.tls:
                writer.write(b"220 ready\r\n")
                await writer.start_tls(self.tls)
                self.tls = None
            elif command == "DATA":
                writer.write(b"354 go\r\n")
                content = await reader.readuntil(b"\r\n.\r\n")
                mail = message_from_bytes(content[:-5], policy=default)
                assert isinstance(mail, EmailMessage)
                self.mails.append(mail)
                self.arrived.set()
                writer.write(b"250 accepted\r\n")
            else:
                writer.write(b"235 welcome\r\n" if command == "AUTH" else b"250 ok\r\n")
            await writer.drain()
            if command == "QUIT":
                break
        writer.close()

    async def wait_for(self, count: int) -> None:
        """Wait until this many mails have arrived."""
        async with asyncio.timeout(60):
            while len(self.mails) < count:
                self.arrived.clear()
                await self.arrived.wait()


@asynccontextmanager
async def open_smtp_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[SmtpServer]:
    server = SmtpServer(tls)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()
