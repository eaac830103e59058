import asyncio
import threading
import time

import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.errors import Unavailable
from app.features.accounts import passwords as module
from app.features.accounts.passwords import UNKNOWN_ACCOUNT_HASH, Passwords

RIGHT = "a nanosecond is 30 cm"


async def test_hash_verifies_its_password_and_no_other() -> None:
    passwords = Passwords()
    stored = await passwords.hash(RIGHT)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert RIGHT not in stored
    assert await passwords.verify(RIGHT, stored) == (True, None)
    assert await passwords.verify(RIGHT + "x", stored) == (False, None)
    assert await passwords.hash(RIGHT) != stored, "each hash has its own salt"


async def test_password_in_another_unicode_form_is_accepted() -> None:
    passwords = Passwords()
    stored = await passwords.hash("Gr\u00f6\u00dfe, \u00e9l\u00e8ve, \u212bngstr\u00f6m")
    typed = "Gro\u0308\u00dfe, e\u0301le\u0300ve, A\u030angstro\u0308m"
    assert await passwords.verify(typed, stored) == (True, None)


async def test_verify_without_an_account_costs_the_same_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verified: list[str] = []
    verify = Argon2Hasher.verify

    def spy(self: Argon2Hasher, password: str | bytes, stored: str | bytes) -> bool:
        verified.append(str(stored))
        return verify(self, password, stored)

    monkeypatch.setattr(Argon2Hasher, "verify", spy)
    passwords = Passwords()
    stored = await passwords.hash(RIGHT)
    assert await passwords.verify("wrong", stored) == (False, None)
    assert await passwords.verify("wrong", None) == (False, None)
    assert verified == [stored, UNKNOWN_ACCOUNT_HASH]
    lengths = [[len(part) for part in text.split("$")] for text in verified]
    assert lengths[0] == lengths[1]
    assert stored.split("$")[:4] == UNKNOWN_ACCOUNT_HASH.split("$")[:4]


async def test_weaker_hash_is_verified_and_replaced() -> None:
    weaker = PasswordHash((Argon2Hasher(memory_cost=8192, time_cost=1, parallelism=1),))
    passwords = Passwords()
    is_right, better = await passwords.verify(RIGHT, weaker.hash(RIGHT))
    assert is_right
    assert better is not None
    assert await passwords.verify(RIGHT, better) == (True, None)
    assert await passwords.verify("wrong", weaker.hash(RIGHT)) == (False, None)


async def test_concurrent_hashes_run_in_a_bounded_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop_thread = threading.get_ident()
    lock, running, maximum = threading.Lock(), 0, 0

    def slow(_self: Argon2Hasher, _password: str | bytes) -> str:
        nonlocal running, maximum
        assert threading.get_ident() != loop_thread
        with lock:
            running += 1
            maximum = max(maximum, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return "hash"

    monkeypatch.setattr(Argon2Hasher, "hash", lambda self, password, **_: slow(self, password))
    passwords = Passwords()
    await asyncio.gather(*(passwords.hash(RIGHT) for _ in range(10)))
    assert maximum == module.MAX_THREADS


async def test_hash_over_the_wait_limit_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(Argon2Hasher, "hash", lambda *_, **__: str(release.wait()))
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.05)
    passwords = Passwords()
    try:
        async with asyncio.timeout(10):
            results = await asyncio.gather(
                *(passwords.hash(RIGHT) for _ in range(5)), return_exceptions=True
            )
    finally:
        release.set()
    assert [type(result) for result in results] == [Unavailable] * 5
