"""The errors of access tokens."""

from app.web.problems import Problem


class InvalidToken(Problem):
    """The access token is expired or not valid."""

    status = 401

    def __init__(self) -> None:
        super().__init__(
            "The access token is expired or not valid: get a new one.",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},  # RFC 6750, 3.1
        )
