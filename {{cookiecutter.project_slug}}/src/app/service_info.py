"""The name and the version of this service, from the metadata of its package."""

from importlib.metadata import metadata, version

SERVICE_NAME = "example-service"


def service_version() -> str:
    return version(SERVICE_NAME)


def service_summary() -> str:
    """Return the description of the package, in one sentence."""
    return metadata(SERVICE_NAME)["Summary"]
