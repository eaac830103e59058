"""A client of the Debug Adapter Protocol, which VS Code's debugger speaks."""

import itertools
import json
import socket
from pathlib import Path
from typing import Any, Self

TIMEOUT_SECONDS = 60


class DebugClient:
    """A connection to a debug adapter. Messages have a Content-Length header and JSON.

    Raises:
        TimeoutError: the adapter does not answer.
        AssertionError: the adapter refused a request.
    """

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), TIMEOUT_SECONDS)
        self._stream = self._socket.makefile("rb")
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, command: str, arguments: dict[str, Any]) -> int:
        """Send a request, and return its number."""
        number = next(self._numbers)
        message = {"seq": number, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        return number

    def response(self, number: int) -> Any:
        """Wait for the response to a request, and return its body."""
        found = self._wait_for("response", request_seq=number)
        assert found["success"], found
        return found.get("body")

    def request(self, command: str, arguments: dict[str, Any]) -> Any:
        return self.response(self.send(command, arguments))

    def event(self, name: str) -> Any:
        """Wait for an event, and return its body."""
        return self._wait_for("event", event=name).get("body")

    def attach(self, configuration: dict[str, Any], breakpoint_at: tuple[Path, int]) -> None:
        """Attach as a launch configuration says, with a breakpoint at a line of a local file."""
        self.request("initialize", {"adapterID": configuration["type"], "pathFormat": "path"})
        attached = self.send("attach", configuration)
        self.event("initialized")
        file, line = breakpoint_at
        source = {"source": {"path": str(file)}, "breakpoints": [{"line": line}]}
        (found,) = self.request("setBreakpoints", source)["breakpoints"]
        assert found["verified"], found
        self.request("configurationDone", {})
        self.response(attached)

    def _wait_for(self, kind: str, **wanted: object) -> Any:
        while True:
            message = self._read()
            if message["type"] == kind and wanted.items() <= message.items():
                return message

    def _read(self) -> dict[str, Any]:
        head = self._stream.readline()
        assert head.startswith(b"Content-Length: "), head
        self._stream.readline()
        message: dict[str, Any] = json.loads(self._stream.read(int(head.split()[1])))
        return message
