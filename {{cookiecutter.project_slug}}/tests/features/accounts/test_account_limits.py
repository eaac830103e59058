import time
from typing import Any

import pytest
from httpx import AsyncClient

from conftest import is_problem

pytestmark = pytest.mark.usefixtures("redis_url")

ACCOUNT = {"email": "grace@navy.example", "password": "a nanosecond is 30 cm"}
FORM = {"username": "grace@navy.example", "password": "guessed"}


@pytest.mark.parametrize(
    ("path", "attempt", "status"),
    [("/accounts", {"json": ACCOUNT}, 409), ("/accounts/login", {"data": FORM}, 401)],
)
async def test_attempts_over_the_limit_return_429(
    anonymous_client: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    attempt: dict[str, Any],
    status: int,
) -> None:
    now = time.time()
    monkeypatch.setattr("app.rate_limit.limiter.time.time", lambda: now)  # stops the clock
    statuses = [(await anonymous_client.post(path, **attempt)).status_code for _ in range(10)]
    assert statuses[1:] == [status] * 9
    refused = await anonymous_client.post(path, **attempt)
    assert is_problem(refused, 429, "too-many-requests")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert (await anonymous_client.get("/accounts/me")).status_code == 401, (
        "other routes are not limited"
    )


async def test_refreshes_are_not_counted_as_guesses(
    anonymous_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("app.rate_limit.limiter.time.time", lambda: now)  # stops the clock
    form = {"grant_type": "refresh_token", "refresh_token": "guessed"}
    for _ in range(11):
        refused = await anonymous_client.post("/accounts/login", data=form)
        assert is_problem(refused, 401, "session-ended")


async def test_login_that_also_claims_to_be_a_refresh_is_limited(
    anonymous_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("app.rate_limit.limiter.time.time", lambda: now)  # stops the clock
    form = FORM | {"grant_type": ["refresh_token", "password"]}
    for _ in range(10):
        refused = await anonymous_client.post("/accounts/login", data=form)
        assert is_problem(refused, 401, "wrong-credentials")
    refused = await anonymous_client.post("/accounts/login", data=form)
    assert is_problem(refused, 429, "too-many-requests")
