"""Looks at a service from outside: is the wanted version there, and does it work?

    python scripts/smoke_test.py https://api.example.com --commit 1f2e3d --wait 300

It reads only. With --write it also makes one resource of each example, reads it and deletes it.
"""

import argparse
import http.client
import json
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from smoke_account import access_token  # option: auth

TIMEOUT_SECONDS = 10  # for one answer
PAUSE_SECONDS = 1.0

# What --write makes, by the path where it is made; {id} is different each time.
EXAMPLES: dict[str, dict[str, str]] = {}
EXAMPLES["/bookmarks"] = {"url": "https://example.com/{id}", "title": "Smoke test"}


class SmokeTestFailed(Exception):
    """The service is not as it should be; the text says in what."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Service:
    """A service at a URL, asked one question at a time."""

    def __init__(self, url: str) -> None:
        """Remember where it is; nothing is sent yet.

        Raises:
            SmokeTestFailed: that is no http:// or https:// URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SmokeTestFailed(f"{url!r} is no URL of a service: https://api.example.com is one")
        self._parts = parts
        self.headers = {"Accept": "application/json"}

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> Answer:
        """Send one request; names of headers are written with _ for -.

        Raises:
            OSError: there was no answer.
            http.client.HTTPException: there was one that is no HTTP.
        """
        is_secure = self._parts.scheme == "https"
        make = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
        connection = make(self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_SECONDS)
        given = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, body, given)
            response = connection.getresponse()
            answered = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, answered, response.read())
        finally:
            connection.close()

    def expect(self, status: int, path: str, method: str = "GET", **options: Any) -> Answer:
        """Ask, and take only that status for an answer.

        Raises:
            SmokeTestFailed: it was another, or there was none.
        """
        try:
            answer = self.ask(path, method, **options)
        except (OSError, http.client.HTTPException) as error:
            raise SmokeTestFailed(f"{method} {path}: {error or type(error).__name__}") from error
        if answer.status != status:
            shown = answer.body[:500].decode(errors="replace")
            raise SmokeTestFailed(f"{method} {path}: {answer.status}, not {status}: {shown}")
        return answer


def is_there(service: Service, commit: str | None) -> None:
    """Whether the wanted version answers, and is ready.

    Raises:
        SmokeTestFailed: not yet, and why.
    """
    health = service.expect(200, "/health").json()
    if commit and health["commit"] != commit:
        raise SmokeTestFailed(f"commit {health['commit']} runs, not {commit}")
    service.expect(200, "/health/ready")


def wait_until(check: Callable[[], None], seconds: float) -> None:
    """Repeat a check until it passes, for so long.

    Raises:
        SmokeTestFailed: what the last one said.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except SmokeTestFailed:
            if time.monotonic() + PAUSE_SECONDS > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def check_reads(service: Service) -> None:
    """Nothing here changes anything.

    Raises:
        SmokeTestFailed: at the first thing that is wrong.
    """
    service.expect(200, "/health/live")
    problem = service.expect(404, f"/{uuid.uuid4()}")
    if problem.headers.get("content-type") != "application/problem+json":
        raise SmokeTestFailed("an error is no problem document")
    if not problem.headers.get("x-request-id"):
        raise SmokeTestFailed("an answer has no request id")
    for path in EXAMPLES:
        service.expect(200, path)


def check_writes(service: Service) -> None:
    """Make, read and delete one of each example.

    Raises:
        SmokeTestFailed: at the first thing that is wrong.
    """
    service.headers["Authorization"] = f"Bearer {access_token(service)}"  # option: auth
    for path, example in EXAMPLES.items():
        document = {name: value.format(id=uuid.uuid4()) for name, value in example.items()}
        body = json.dumps(document)
        made = service.expect(201, path, "POST", body=body, Content_Type="application/json")
        place = f"{path}/{made.json()['id']}"
        read = service.expect(200, place)
        if not document.items() <= read.json().items():
            raise SmokeTestFailed(f"GET {place}: {read.json()}, not {document}")
        service.expect(204, place, "DELETE", If_Match=read.headers["etag"])
        service.expect(404, place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="of the service")
    parser.add_argument("--commit", help="of the version that must answer")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="until it does")
    parser.add_argument("--write", action="store_true", help="make and delete an example, too")
    arguments = parser.parse_args()
    try:
        service = Service(arguments.url)
        wait_until(lambda: is_there(service, arguments.commit), arguments.wait)
        check_reads(service)
        if arguments.write:
            check_writes(service)
    except SmokeTestFailed as error:
        sys.exit(f"smoke test failed: {error}")
    print(f"{arguments.url}: {arguments.commit or 'the service'} works")


if __name__ == "__main__":
    main()
