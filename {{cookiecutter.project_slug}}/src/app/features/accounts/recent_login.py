"""Acts that need a recent log-in, in place of a password."""

from datetime import timedelta

from app.web.problems import Problem

MAX_AGE = timedelta(minutes=10)


class RecentLoginRequired(Problem):
    """The log-in of the access token is too old for this request, or its session has ended."""

    status = 401

    def __init__(self) -> None:
        max_age_seconds = int(MAX_AGE.total_seconds())
        challenge = f'Bearer error="insufficient_user_authentication", max_age="{max_age_seconds}"'
        super().__init__(
            f"Log in again: the log-in must not be older than {max_age_seconds} s.",
            headers={"WWW-Authenticate": challenge},  # RFC 9470, 3
        )
