"""Rate limits of a process of the service."""

import time
import uuid
from collections import Counter
from pathlib import Path

import httpx
import pytest

from app.cache.circuit_breaker import PAUSE_SECONDS
from processes import Service, environment, get, wait_until
from valkey_server import Valkey


def test_frozen_or_stopped_redis_is_logged_once_and_delays_one_request_a_second(
    database_url: str, valkey: Valkey
) -> None:
    env = environment(database_url, REDIS_URL=valkey.url, RATE_LIMIT="1000/minute")
    lost, found = (
        "rate limiting is disabled: Redis is unavailable",
        "rate limiting is enabled again",
    )
    wait = "redis unavailable"  # one line for each request that waited
    with Service(["app", "serve"], env) as service:
        url = service.wait_until_ready()
        with httpx.Client(base_url=url) as client:

            def is_counted() -> bool:
                response = client.get("/openapi.json")
                assert response.status_code == 200
                return "RateLimit" in response.headers

            def messages() -> Counter[str]:
                return Counter(service.messages())

            # On a busy machine the first answers of Redis may be late.
            wait_until(is_counted, doing=service)
            before = messages()
            valkey.freeze()
            started = time.monotonic()
            assert not any(is_counted() for _ in range(20))
            waits = messages()[wait] - before[wait]
            assert 1 <= waits <= 1 + (time.monotonic() - started) / PAUSE_SECONDS
            wait_until(
                lambda: not is_counted() and messages()[wait] > before[wait] + waits, doing=service
            )
            assert messages()[lost] == before[lost] + 1
            valkey.thaw()
            wait_until(is_counted, doing=service)
            assert messages()[found] == before[found] + 1
            valkey.stop()
            assert not any(is_counted() for _ in range(20))
            assert messages()[lost] == before[lost] + 2
        assert service.stderr == ""


@pytest.mark.parametrize(
    ("trusted", "expected"), [("127.0.0.1", [200, 200, 429]), ("", [200, 429, 429])]
)
def test_client_behind_a_trusted_proxy_is_the_forwarded_address(
    database_url: str, valkey: Valkey, source: Path, trusted: str, expected: list[int]
) -> None:
    limiter = source / "app" / "rate_limit" / "limiter.py"
    text = limiter.read_text()
    assert text.count("time.time()") == 1
    # A stopped clock: no window ends during the test.
    limiter.write_text(text.replace("time.time()", "1_000_000.0"))
    env = environment(
        database_url,
        REDIS_URL=valkey.url,
        PYTHONPATH=str(source),
        RATE_LIMIT="1/hour",
        FORWARDED_ALLOW_IPS=trusted or "192.0.2.1",
    )
    with Service(["app", "serve"], env) as service:
        port = service.wait_until_ready().rpartition(":")[2]
        # The last client forges a first address; the proxy appends the real one.
        clients = ("203.0.113.1", "203.0.113.2", "203.0.113.3, 203.0.113.2")
        responses = [
            get(
                f"http://127.0.0.1:{port}/openapi.json",
                headers={"X-Forwarded-For": client, "X-Request-Id": uuid.uuid4().hex},
            )
            for client in clients
        ]
    assert [response.status_code for response in responses] == expected
