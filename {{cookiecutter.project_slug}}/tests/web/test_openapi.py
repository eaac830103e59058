import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from email.message import Message
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.main import create_app
from app.settings import Settings
from app.web.openapi import describe_service, find_contact
from processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def test_info_has_the_metadata_of_the_package(app: FastAPI) -> None:
    info = app.openapi()["info"]
    assert info["contact"] == PROJECT["authors"][0]
    assert info["license"]["identifier"] == PROJECT["license"]
    assert info["license"]["name"] == PROJECT["license"].removeprefix("LicenseRef-")
    assert (info["description"], info["version"]) == (PROJECT["description"], PROJECT["version"])


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
    monkeypatch: pytest.MonkeyPatch, authors: str | None, contact: dict[str, str] | None
) -> None:
    package = Message()
    if authors:
        package["Author-email"] = authors
    monkeypatch.setattr("app.web.openapi.metadata", lambda _: package)
    assert find_contact() == contact


def test_missing_license_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Message()
    package["Summary"], package["Version"] = "A service.", "1.0.0"
    monkeypatch.setattr("app.web.openapi.metadata", lambda _: package)
    assert describe_service()["license_info"] is None


def test_servers_are_relative_to_the_document(app: FastAPI) -> None:
    assert app.openapi()["servers"] == [{"url": "/"}]


def test_operation_ids_are_function_names(app: FastAPI) -> None:
    document = app.openapi()  # FastAPI warns of names that occur twice
    for name, operation in operations_of(document):
        assert operation["operationId"].isidentifier(), name
    assert document["paths"]["/health/ready"]["get"]["operationId"] == "check_readiness"


def test_tags_have_descriptions(app: FastAPI) -> None:
    described = {tag["name"]: tag["description"] for tag in app.openapi()["tags"]}
    assert described["health"]
    assert all(described.values())


def test_routes_that_return_428_document_if_match_as_required(app: FastAPI) -> None:
    for name, operation in operations_of(app.openapi()):
        if "428" not in operation["responses"]:
            continue
        parameters = {item["name"]: item for item in operation["parameters"]}
        assert len(parameters) == len(operation["parameters"]), name
        assert parameters["If-Match"]["required"], name
        assert parameters["If-Match"]["in"] == "header", name


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


def print_document(hash_seed: int) -> bytes:
    command = [sys.executable, "-m", "app.cli", "openapi"]
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    return subprocess.run(command, env=env, check=True, capture_output=True).stdout


async def test_document_has_the_same_bytes_in_every_process(service: AsyncClient) -> None:
    printed = print_document(1)
    assert printed == print_document(2)
    served = await service.get("/openapi.json")
    assert served.json() == json.loads(printed)
    assert served.content == (await service.get("/openapi.json")).content
