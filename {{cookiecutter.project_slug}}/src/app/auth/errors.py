"""The errors of access tokens, and of providers."""

from app.errors import Unavailable
from app.web.problems import Problem

PAUSE_SECONDS = 10  # until another request to a provider that is down


class InvalidToken(Problem):
    """The access token is expired or not valid."""

    status = 401

    def __init__(self) -> None:
        super().__init__(
            "The access token is expired or not valid: get a new one.",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},  # RFC 6750, 3.1
        )


class PermissionRequired(Problem):
    """The credentials are valid, and lack a permission."""

    status = 403

    def __init__(self, permissions: str) -> None:
        challenge = f'Bearer error="insufficient_scope", scope="{permissions}"'
        super().__init__(
            f"The access token needs the permission {permissions}.",
            headers={"WWW-Authenticate": challenge},  # RFC 6750, 3.1
        )


class ProviderUnavailable(Unavailable):
    """An identity provider does not answer, or its answer cannot be used."""

    def __init__(self, detail: str = "The identity provider is unavailable.") -> None:
        super().__init__(detail, retry_after_seconds=PAUSE_SECONDS)
