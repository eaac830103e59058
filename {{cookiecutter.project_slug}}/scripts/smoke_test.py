"""Check a running service over HTTP: its version, its readiness and its responses.

    python scripts/smoke_test.py https://api.example.com --commit 1f2e3d --wait 300

It only reads. With --write it also creates, reads and deletes one resource of each example.
"""

import argparse
import http.client
import json
import os  # option: oidc
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from smoke_account import delete_account, log_in  # option: accounts

TIMEOUT_SECONDS = 10  # of one request
PAUSE_SECONDS = 1.0

# The resource that --write creates, by path. {id} is different each time.
EXAMPLES: dict[str, dict[str, str]] = {}
EXAMPLES["/bookmarks"] = {"url": "https://example.com/{id}", "title": "Smoke test"}


class SmokeTestFailed(Exception):
    """A check of the service failed, for the reason in the message."""


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Service:
    """A client of the service, without concurrency."""

    def __init__(self, url: str) -> None:
        """Parse the URL.

        Raises:
            SmokeTestFailed: the URL is not an http:// or https:// URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SmokeTestFailed(f"{url!r} is not an http:// or https:// URL")
        self._parts = parts
        self.headers = {"Accept": "application/json"}

    def send(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> Response:
        """Send a request. Names of headers have _ instead of -.

        Raises:
            OSError: the service is unreachable, or did not respond in time.
            http.client.HTTPException: the response is not valid HTTP.
        """
        is_secure = self._parts.scheme == "https"
        make = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
        connection = make(self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_SECONDS)
        given = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, body, given)
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, received, response.read())
        finally:
            connection.close()

    def expect(self, status: int, path: str, method: str = "GET", **options: Any) -> Response:
        """Send a request, and check the status of the response.

        Raises:
            SmokeTestFailed: the status differs, or the request failed.
        """
        try:
            response = self.send(path, method, **options)
        except (OSError, http.client.HTTPException) as error:
            raise SmokeTestFailed(f"{method} {path}: {error or type(error).__name__}") from error
        if response.status != status:
            shown = response.body[:500].decode(errors="replace")
            raise SmokeTestFailed(f"{method} {path}: {response.status}, not {status}: {shown}")
        return response


def check_version(service: Service, commit: str | None) -> None:
    """Check that the expected version runs and is ready.

    Raises:
        SmokeTestFailed: another version runs, or the service is not ready.
    """
    health = service.expect(200, "/health").json()
    if commit and health["commit"] != commit:
        raise SmokeTestFailed(f"commit {health['commit']} runs, not {commit}")
    service.expect(200, "/health/ready")


def wait_until(check: Callable[[], None], seconds: float) -> None:
    """Repeat a check until it passes, for at most so many seconds.

    Raises:
        SmokeTestFailed: the error of the last attempt.
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
    """Check responses to requests that change nothing.

    Raises:
        SmokeTestFailed: the first check that failed.
    """
    service.expect(200, "/health/live")
    problem = service.expect(404, f"/{uuid.uuid4()}")
    if problem.headers.get("content-type") != "application/problem+json":
        raise SmokeTestFailed("an error is not a problem document")
    if not problem.headers.get("x-request-id"):
        raise SmokeTestFailed("a response has no request id")
    for path in EXAMPLES:
        service.expect(200, path)


def check_writes(service: Service) -> None:
    """Create, read and delete one resource of each example.

    Raises:
        SmokeTestFailed: the first check that failed.
    """
    if token := os.environ.get("SMOKE_TOKEN"):  # option: oidc
        service.headers["Authorization"] = f"Bearer {token}"  # option: oidc
    password = log_in(service)  # option: accounts
    if "Authorization" not in service.headers:  # option: oidc
        print("nothing is written: set SMOKE_TOKEN to an access token")  # option: oidc
        return  # option: oidc
    for path, example in EXAMPLES.items():
        document = {name: value.format(id=uuid.uuid4()) for name, value in example.items()}
        body = json.dumps(document)
        created = service.expect(201, path, "POST", body=body, Content_Type="application/json")
        url = f"{path}/{created.json()['id']}"
        read = service.expect(200, url)
        if not document.items() <= read.json().items():
            raise SmokeTestFailed(f"GET {url}: {read.json()}, not {document}")
        service.expect(204, url, "DELETE", If_Match=read.headers["etag"])
        service.expect(404, url)
    delete_account(service, password)  # option: accounts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="URL of the service")
    parser.add_argument("--commit", help="expected commit")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for the commit")
    parser.add_argument("--write", action="store_true", help="also create and delete examples")
    arguments = parser.parse_args()
    try:
        service = Service(arguments.url)
        wait_until(lambda: check_version(service, arguments.commit), arguments.wait)
        check_reads(service)
        if arguments.write:
            check_writes(service)
    except SmokeTestFailed as error:
        sys.exit(f"smoke test failed: {error}")
    print(f"{arguments.url}: {arguments.commit or 'the service'} works")


if __name__ == "__main__":
    main()
