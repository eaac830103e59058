from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from app.web.openapi import describe_service, find_contact


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the operations of the infrastructure; in the template, those of features, too."""
    for path, operations in document["paths"].items():
        is_infrastructure = path.startswith("/health")
        is_infrastructure = True  # in the template only
        if not is_infrastructure:
            continue
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Message:
    """Replace the metadata of the package."""
    package = Message()
    package["Summary"], package["Version"] = "A service.", "1.0.0"
    monkeypatch.setattr("app.web.openapi.metadata", lambda _: package)
    return package


def test_info_has_the_metadata_of_the_package(package: Message, settings: Settings) -> None:
    package["Author-email"] = "Ada <a@b.example>"
    package["License-Expression"] = "LicenseRef-Own"
    info = create_app(settings).openapi()["info"]
    assert info["contact"] == {"name": "Ada", "email": "a@b.example"}
    assert info["license"] == {"name": "Own", "identifier": "LicenseRef-Own"}
    assert (info["description"], info["version"]) == ("A service.", "1.0.0")


@pytest.mark.parametrize(
    ("authors", "contact"),
    [
        ("Hopper, Grace <g@b.example>", {"name": "Hopper, Grace", "email": "g@b.example"}),
        ("Ada <a@b.example>, Bob <b@b.example>", {"name": "Ada", "email": "a@b.example"}),
        ("a@b.example", {"email": "a@b.example"}),
        (None, None),
    ],
)
def test_contact_is_the_first_author_with_an_address(
    package: Message, authors: str | None, contact: dict[str, str] | None
) -> None:
    if authors:
        package["Author-email"] = authors
    assert find_contact() == contact


def test_missing_license_is_left_out(package: Message) -> None:
    assert "License-Expression" not in package
    assert describe_service()["license_info"] is None


def test_servers_are_relative_to_the_document(app: FastAPI) -> None:
    assert app.openapi()["servers"] == [{"url": "/"}]


def test_operation_ids_are_function_names(app: FastAPI) -> None:
    document = app.openapi()  # FastAPI warns of names that occur twice
    for name, operation in operations_of(document):
        assert operation["operationId"].isidentifier(), name
    assert document["paths"]["/health/ready"]["get"]["operationId"] == "check_readiness"


def test_tags_have_descriptions(app: FastAPI) -> None:
    described = {tag["name"]: tag.get("description") for tag in app.openapi()["tags"]}
    assert described["health"]
    assert all(described.values())  # in the template only


def test_tokens_are_security_schemes_and_no_parameters(app: FastAPI) -> None:
    document = app.openapi()
    for name, operation in operations_of(document):
        parameters = {item["name"].lower() for item in operation.get("parameters", ())}
        assert "authorization" not in parameters, name
    (requirement,) = document["paths"]["/health/detailed"]["get"]["security"]
    (scheme,) = requirement
    assert document["components"]["securitySchemes"][scheme]["type"] == "http"
    assert document["components"]["securitySchemes"][scheme]["scheme"] == "bearer"
    assert document["security"] == []  # routes without a requirement are open
