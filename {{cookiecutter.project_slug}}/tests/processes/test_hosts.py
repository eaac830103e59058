"""The Host header and the request target (RFC 9112, 3.2), sent over a socket."""

import json
import socket
from collections.abc import Iterator

import pytest

from processes import Service, environment

ALLOWED_HOST = "api.example.com"


@pytest.fixture(scope="module")
def address(database_url: str) -> Iterator[tuple[str, int]]:
    env = environment(database_url, ALLOWED_HOSTS=f"{ALLOWED_HOST},[::1]")
    with Service(["app", "serve"], env) as service:
        yield "127.0.0.1", int(service.wait_until_ready().rpartition(":")[2])


def send_request(address: tuple[str, int], head: str) -> tuple[int, str, bytes]:
    """Send the head of a request, and return status, media type and body of the response."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode())
        with client.makefile("rb") as response:
            status = int(response.readline().split()[1])
            fields = dict(line.split(b": ", 1) for line in iter(response.readline, b"\r\n"))
            return status, fields[b"content-type"].decode().strip(), response.read()


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
def test_request_with_a_missing_or_ambiguous_host_returns_400(
    address: tuple[str, int], head: str, path: str
) -> None:
    status, media_type, body = send_request(address, head.format(path=path))
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
def test_request_in_absolute_form_is_served_as_in_origin_form(
    address: tuple[str, int], head: str, status: int
) -> None:
    returned_status, media_type, body = send_request(address, head.format(path="/openapi.json"))
    assert returned_status == status
    if status == 400:
        assert media_type == "application/problem+json"
        assert json.loads(body)["type"] == "urn:problem:untrusted-host"
    else:
        assert "openapi" in json.loads(body)


def test_http_1_0_probe_without_host_returns_200(address: tuple[str, int]) -> None:
    """HAProxy sends no Host header with its health check."""
    assert send_request(address, "GET /health/live HTTP/1.0")[0] == 200
