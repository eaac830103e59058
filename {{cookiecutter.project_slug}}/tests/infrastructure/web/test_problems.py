from collections.abc import AsyncIterator

import pytest
from fastapi import HTTPException
from httpx import AsyncClient
from pydantic import BaseModel, ConfigDict

from app.db.pagination import InvalidCursor
from app.errors import Conflict, ServiceError, Unavailable
from app.jobs.attempts import JobFailed  # option: worker
from app.jobs.health import WorkerBlocked  # option: worker
from app.settings import Settings
from app.web.problems import MAX_LISTED_ERRORS, STATUS, Problem, status_of
from conftest import running
from small_app import create_small_app


class OutOfStock(Conflict):
    """No item is left."""


class SoldOut(Conflict):
    type = "urn:problem:out-of-stock"
    title = "Nothing Left"


class HTTPProxyDown(Unavailable):
    type = "urn:problem:moved"


# The titles of the infrastructure's problems by type. Clients depend on the types.
PROBLEMS = {
    "about:blank": "Content Too Large",
    "urn:problem:invalid-cursor": "Invalid Cursor",
    "urn:problem:invalid-host": "Invalid Host",
    "urn:problem:invalid-token": "Invalid Token",  # option: auth
    "urn:problem:job-failed": "Job Failed",  # option: worker
    "urn:problem:job-not-found": "Job Not Found",  # option: worker
    "urn:problem:job-timed-out": "Job Timed Out",  # option: worker
    "urn:problem:not-ready": "Not Ready",
    "urn:problem:permission-required": "Permission Required",  # option: auth
    "urn:problem:provider-unavailable": "Provider Unavailable",  # option: oidc
    "urn:problem:origin-refused": "Origin Refused",
    "urn:problem:token-required": "Token Required",
    "urn:problem:too-many-requests": "Too Many Requests",  # option: rate_limit
    "urn:problem:untrusted-host": "Untrusted Host",
    "urn:problem:worker-blocked": "Worker Blocked",  # option: worker
    "urn:problem:worker-ended": "Worker Ended",  # option: worker
}


class Order(BaseModel):
    count: int


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AsyncClient]:
    app = create_small_app(settings)

    @app.post("/_test/orders")
    async def order(order: Order) -> int:
        match order.count:
            case 1:
                raise OutOfStock("None left.", left=0)
            case 2:
                raise Unavailable("The warehouse is closed.", retry_after_seconds=60)
            case 3:
                raise RuntimeError("secret detail")
            case 4:
                raise Conflict("Archived.", status="archived", left=0)
            case 5:
                raise HTTPException(499)
        return order.count

    @app.post("/_test/strict")
    async def strict(body: Strict) -> Strict:
        return body

    async with running(app) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "title"),
    [
        ("GET", "/_test/nowhere", None, 404, "Not Found"),
        ("DELETE", "/_test/orders", None, 405, "Method Not Allowed"),
        ("POST", "/_test/orders", b'{"count": 1}', 409, "Out Of Stock"),
        ("POST", "/_test/orders", b"{" + b"x" * 2_000_000, 413, "Content Too Large"),
        ("POST", "/_test/orders", b'{"count": "many"}', 422, "Unprocessable Content"),
        ("POST", "/_test/orders", b"{", 422, "Unprocessable Content"),
        ("POST", "/_test/orders", b'{"count": 3}', 500, "Internal Server Error"),
        ("POST", "/_test/orders", b'{"count": 2}', 503, "Service Unavailable"),
        ("POST", "/_test/orders", b'{"count": 4}', 409, "Conflict"),
        ("POST", "/_test/orders", b'{"count": 5}', 499, "Error"),
    ],
)
async def test_every_error_is_a_problem_document_with_the_request_id(
    client: AsyncClient, method: str, path: str, body: bytes | None, status: int, title: str
) -> None:
    headers = {"Content-Type": "application/json", "X-Request-Id": "of-this-test"}
    response = await client.request(method, path, content=body, headers=headers)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["title"]) == (status, title)
    assert problem["request_id"] == "of-this-test" == response.headers["X-Request-Id"]
    assert "secret" not in response.text


async def test_error_of_a_feature_has_its_own_type_and_members(client: AsyncClient) -> None:
    problem = (await client.post("/_test/orders", json={"count": 1})).json()
    assert problem["type"] == "urn:problem:out-of-stock"
    assert (problem["detail"], problem["left"]) == ("None left.", 0)


def test_type_and_title_of_an_error_are_its_own_or_come_from_the_name_of_its_class() -> None:
    assert (OutOfStock.type, OutOfStock.title) == ("urn:problem:out-of-stock", "Out Of Stock")
    assert (HTTPProxyDown.type, HTTPProxyDown.title) == ("urn:problem:moved", "HTTP Proxy Down")
    assert (SoldOut.type, SoldOut.title) == ("urn:problem:out-of-stock", "Nothing Left")


def test_kinds_of_errors_have_the_title_of_their_status() -> None:
    assert {status_of(kind): kind.title for kind in STATUS} == {
        401: "Unauthorized",
        404: "Not Found",
        409: "Conflict",
        412: "Precondition Failed",
        422: "Unprocessable Content",
        429: "Too Many Requests",
        502: "Bad Gateway",
        503: "Service Unavailable",
        504: "Gateway Timeout",
    }
    assert {kind.type for kind in STATUS} == {"about:blank"}


def test_types_and_titles_of_the_infrastructure_are_stable() -> None:
    kinds = all_subclasses(ServiceError)
    assert InvalidCursor in kinds  # no other module of the infrastructure imports it
    assert {JobFailed, WorkerBlocked} <= set(kinds)  # option: worker
    found = {
        kind.type: kind.title
        for kind in kinds
        if kind not in {*STATUS, Problem}
        and kind.__module__.startswith("app.")
        and not kind.__module__.startswith("app.features.")
    }
    assert PROBLEMS.items() <= found.items()
    assert found == PROBLEMS  # in the template only


def all_subclasses(kind: type[ServiceError]) -> list[type[ServiceError]]:
    direct = kind.__subclasses__()
    return direct + [below for subclass in direct for below in all_subclasses(subclass)]


async def test_unavailable_response_has_retry_after(client: AsyncClient) -> None:
    assert (await client.post("/_test/orders", json={"count": 2})).headers["Retry-After"] == "60"


async def test_validation_error_has_location_and_message_without_the_value(
    client: AsyncClient,
) -> None:
    response = await client.post("/_test/orders", json={"count": "hunter2"})
    assert "hunter2" not in response.text
    assert response.json()["errors"] == [
        {
            "location": "body.count",
            "message": "Input should be a valid integer, unable to parse string as an integer",
            "type": "int_parsing",
        }
    ]


async def test_validation_error_hides_the_name_of_an_unknown_field(client: AsyncClient) -> None:
    response = await client.post("/_test/strict", json={"hunter2": 1})
    assert response.json()["errors"][0]["location"] == "body.*"
    assert "hunter2" not in response.text


async def test_validation_errors_over_the_maximum_are_left_out(client: AsyncClient) -> None:
    response = await client.post("/_test/strict", json=dict.fromkeys(map(str, range(1000)), 0))
    assert response.status_code == 422
    assert len(response.json()["errors"]) == MAX_LISTED_ERRORS


async def test_method_not_allowed_response_names_the_allowed_methods(client: AsyncClient) -> None:
    assert (await client.delete("/_test/orders")).headers["Allow"] == "POST"


async def test_openapi_document_describes_problems(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status in ("422", "default"):
                content = operation["responses"][status]["content"]
                assert list(content) == ["application/problem+json"], path
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert "request_id" in document["components"]["schemas"]["Problem"]["properties"]
