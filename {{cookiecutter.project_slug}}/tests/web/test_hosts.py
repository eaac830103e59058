"""The Host field and the request target (RFC 9112, 3.2), sent to a server over a socket."""

import json
import socket
from collections.abc import Iterator

import pytest

from processes import APP, Service, environment

SERVED = "api.example.com"


@pytest.fixture(scope="module")
def address(database_url: str) -> Iterator[tuple[str, int]]:
    env = environment(database_url, ALLOWED_HOSTS=f"{SERVED},[::1]")
    with Service([*APP, "serve"], env) as service:
        yield "127.0.0.1", int(service.wait_until_ready().rpartition(":")[2])


def exchange(address: tuple[str, int], head: str) -> tuple[int, str, bytes]:
    """Send a request's head, and return status, media type and body of the answer."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
        with client.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            fields = dict(line.split(b": ", 1) for line in iter(answer.readline, b"\r\n"))
            return status, fields[b"content-type"].decode().strip(), answer.read()


@pytest.mark.parametrize("path", ["/health/live", "/openapi.json"])
@pytest.mark.parametrize(
    "head",
    [
        "GET {path} HTTP/1.1\r\nHost: api.example.com\r\nHost: api.example.com",
        "GET {path} HTTP/1.1\r\nHost: api.example.com\r\nHost: evil.com",
        "GET {path} HTTP/1.0\r\nHost: api.example.com\r\nHost: evil.com",
        "GET {path} HTTP/1.1",
        "GET http://evil.com{path} HTTP/1.1\r\nHost: api.example.com",
        "GET http://api.example.com{path} HTTP/1.1\r\nHost: evil.com",
        "GET http://api.example.com:81{path} HTTP/1.1\r\nHost: api.example.com",
        "GET http://evil.com@api.example.com{path} HTTP/1.1\r\nHost: api.example.com",
        "GET http://api.example.com{path} HTTP/1.1",
    ],
)
def test_request_without_one_clear_host_returns_400(
    address: tuple[str, int], head: str, path: str
) -> None:
    status, media_type, body = exchange(address, head.format(path=path))
    assert status == 400
    assert media_type == "application/problem+json"
    assert json.loads(body)["type"] == "urn:problem:invalid-host"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET http://api.example.com{path} HTTP/1.1\r\nHost: api.example.com", 200),
        ("GET HTTP://API.example.com:80{path} HTTP/1.1\r\nHost: api.example.COM", 200),
        ("GET https://api.example.com{path} HTTP/1.1\r\nHost: api.example.com:443", 200),
        ("GET http://api.example.com:8080{path} HTTP/1.1\r\nHost: api.example.com:8080", 200),
        ("GET http://[::1]:80{path} HTTP/1.1\r\nHost: [::1]", 200),
        ("GET http://api.example.com{path}?a=http://b HTTP/1.1\r\nHost: api.example.com", 200),
        ("GET {path}?a=http://evil.com HTTP/1.1\r\nHost: api.example.com", 200),
        ("GET http://api.example.com{path} HTTP/1.0", 200),
        ("GET http://evil.com{path} HTTP/1.0", 400),
        ("GET http://evil.com{path} HTTP/1.1\r\nHost: evil.com", 400),
        ("GET {path} HTTP/1.0", 400),
    ],
)
def test_absolute_form_is_served_as_origin_form_is(
    address: tuple[str, int], head: str, status: int
) -> None:
    answered, media_type, body = exchange(address, head.format(path="/openapi.json"))
    assert answered == status
    if status == 400:
        assert media_type == "application/problem+json"
        assert json.loads(body)["type"] == "urn:problem:untrusted-host"
    else:
        assert "openapi" in json.loads(body)


def test_probe_of_http_1_0_needs_no_host(address: tuple[str, int]) -> None:
    """HAProxy's own health check sends none."""
    assert exchange(address, "GET /health/live HTTP/1.0")[0] == 200
