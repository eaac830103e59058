import os
import time
from typing import Any

import pytest
from httpx import AsyncClient

pytestmark = pytest.mark.skipif(
    "TEST_REDIS_URL" not in os.environ, reason="there is no embedded Valkey here: set REDIS_URL"
)

ACCOUNT = {"email": "grace@navy.example", "password": "a nanosecond is 30 cm"}
FORM = {"username": "grace@navy.example", "password": "guessed"}


@pytest.mark.parametrize(
    ("path", "attempt", "status"),
    [("/accounts", {"json": ACCOUNT}, 409), ("/accounts/login", {"data": FORM}, 401)],
)
async def test_whoever_tries_too_often_must_wait(
    stranger: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    attempt: dict[str, Any],
    status: int,
) -> None:
    now = time.time()
    monkeypatch.setattr("app.rate_limit.limiter.time.time", lambda: now)  # the minute does not end
    statuses = [(await stranger.post(path, **attempt)).status_code for _ in range(10)]
    assert statuses[1:] == [status] * 9
    refused = await stranger.post(path, **attempt)
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:problem:too-many-requests"
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert (await stranger.get("/accounts/me")).status_code == 401, "the rest is as it was"
