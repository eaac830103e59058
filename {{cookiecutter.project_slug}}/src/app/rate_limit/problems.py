"""The problem of a client that has exceeded a limit."""

from app.rate_limit.limiter import RateLimitStatus
from app.web.problems import Problem


class TooManyRequests(Problem):
    status = 429

    def __init__(self, status: RateLimitStatus) -> None:
        super().__init__(
            f"Try again in {status.seconds_left} s.",
            headers={"Retry-After": str(status.seconds_left)},
        )
