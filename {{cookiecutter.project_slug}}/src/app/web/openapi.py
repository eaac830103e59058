"""The parts of the OpenAPI document that describe the whole service."""

import re
from importlib.metadata import metadata
from typing import Any

from fastapi import FastAPI

from app.discovery import find_modules
from app.service_info import SERVICE_NAME
from app.web.health import TAG as HEALTH_TAG
from app.web.problems import FORBIDDEN, UNAUTHORIZED, ProblemDocument

FIRST_AUTHOR = re.compile(r"(?:(?P<name>[^<>]+) <)?(?P<email>[^<>, ]+@[^<>, ]+)")


def describe_service() -> dict[str, Any]:
    """Return arguments of `FastAPI()`.

    They come from the metadata of the package, and from `TAG` of each module `routes`.
    """
    about = metadata(SERVICE_NAME)
    license_info = None
    if "License-Expression" in about:
        license_id = about["License-Expression"]
        license_info = {"name": license_id.removeprefix("LicenseRef-"), "identifier": license_id}
    routes = find_modules("routes")
    return {
        "description": about["Summary"],
        "version": about["Version"],
        "license_info": license_info,
        "servers": [{"url": "/"}],  # relative to the document: the host that served it
        "openapi_tags": [HEALTH_TAG, *(module.TAG for module in routes if hasattr(module, "TAG"))],
        # Generated clients name their functions after these ids.
        "generate_unique_id_function": lambda route: route.name,
    }


def find_contact() -> dict[str, str] | None:
    """Return the first author of the package's metadata that has an e-mail address."""
    for authors in metadata(SERVICE_NAME).get_all("Author-email", []):
        if author := FIRST_AUTHOR.match(authors):
            return {key: value for key, value in author.groupdict().items() if value}
    return None


def extend_openapi(app: FastAPI) -> None:
    """Add the parts for which `FastAPI()` has no argument."""
    describe = app.openapi
    contact = find_contact()

    def openapi() -> dict[str, Any]:
        document = describe()
        if contact:
            # FastAPI's own argument logs a warning unless another package checks the address.
            document["info"]["contact"] = contact
        document.setdefault("security", [])  # routes are open unless they require a token
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("Problem", ProblemDocument.model_json_schema())
        for operations in document["paths"].values():
            for operation in operations.values():
                if operation.get("security"):
                    operation["responses"].setdefault("401", UNAUTHORIZED)
                if any(any(item.values()) for item in operation.get("security", ())):
                    operation["responses"].setdefault("403", FORBIDDEN)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents replacing this method to extend the document
