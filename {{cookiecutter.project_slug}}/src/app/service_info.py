"""The name and the version of this service, from the metadata of its package."""

from importlib.metadata import version

SERVICE_NAME = "example-service"


def service_version() -> str:
    return version(SERVICE_NAME)
