import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from redis import Redis, RedisError

from app.dev.valkey import embedded_valkey
from processes import HANG_SECONDS

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="there is no embedded Valkey for Windows"
)


def test_embedded_valkey_of_one_folder_is_shared_until_the_first_user_ends(tmp_path: Path) -> None:
    with embedded_valkey(tmp_path / "a") as url:
        with embedded_valkey(tmp_path / "a") as joined:
            assert joined == url
        with Redis.from_url(url) as redis:
            assert redis.ping(), "the second user does not stop the server"
        with embedded_valkey(tmp_path / "b") as other:
            assert other != url
    with Redis.from_url(url) as redis, pytest.raises(RedisError):
        redis.ping()


def test_two_users_that_begin_at_once_share_one_server(tmp_path: Path) -> None:
    both_run = Barrier(2, timeout=HANG_SECONDS)

    def use() -> str:
        with embedded_valkey(tmp_path) as url:
            both_run.wait()
            return url

    with ThreadPoolExecutor(2) as executor:
        first, second = executor.submit(use), executor.submit(use)
        assert first.result() == second.result()


def test_url_file_left_by_a_crash_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("unix:///no/such/socket")
    with embedded_valkey(tmp_path) as url, Redis.from_url(url) as redis:
        assert redis.ping()
