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


async def test_a_password_is_told_from_others_by_its_hash() -> None:
    passwords = Passwords()
    stored = await passwords.hash(RIGHT)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert RIGHT not in stored
    assert await passwords.verify(RIGHT, stored) == (True, None)
    assert await passwords.verify(RIGHT + "x", stored) == (False, None)
    assert await passwords.hash(RIGHT) != stored, "each has a salt of its own"


async def test_keyboards_that_type_a_letter_differently_agree() -> None:
    passwords = Passwords()
    stored = await passwords.hash("Gr\u00f6\u00dfe, \u00e9l\u00e8ve, \u212bngstr\u00f6m")
    typed = "Gro\u0308\u00dfe, e\u0301le\u0300ve, A\u030angstro\u0308m"
    assert await passwords.verify(typed, stored) == (True, None)


async def test_nobodys_hash_is_as_much_work_as_anybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    verify = Argon2Hasher.verify

    def seen(self: Argon2Hasher, password: str | bytes, stored: str | bytes) -> bool:
        verified.append(str(stored))
        return verify(self, password, stored)

    monkeypatch.setattr(Argon2Hasher, "verify", seen)
    passwords = Passwords()
    stored = await passwords.hash(RIGHT)
    assert await passwords.verify("wrong", stored) == (False, None)
    assert await passwords.verify("wrong", None) == (False, None)
    assert verified == [stored, UNKNOWN_ACCOUNT_HASH]
    lengths = [[len(part) for part in text.split("$")] for text in verified]
    assert lengths[0] == lengths[1]
    assert stored.split("$")[:4] == UNKNOWN_ACCOUNT_HASH.split("$")[:4]


async def test_a_hash_of_an_older_kind_is_to_be_replaced() -> None:
    weaker = PasswordHash((Argon2Hasher(memory_cost=8192, time_cost=1, parallelism=1),))
    passwords = Passwords()
    is_right, better = await passwords.verify(RIGHT, weaker.hash(RIGHT))
    assert is_right
    assert better is not None
    assert await passwords.verify(RIGHT, better) == (True, None)
    assert await passwords.verify("wrong", weaker.hash(RIGHT)) == (False, None)


async def test_hashing_leaves_the_event_loop_alone_and_only_a_few_run_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop_thread = threading.get_ident()
    lock, running, most = threading.Lock(), 0, 0

    def slow(_self: Argon2Hasher, _password: str | bytes) -> str:
        nonlocal running, most
        assert threading.get_ident() != loop_thread
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return "hash"

    monkeypatch.setattr(Argon2Hasher, "hash", lambda self, password, **_: slow(self, password))
    passwords = Passwords()
    await asyncio.gather(*(passwords.hash(RIGHT) for _ in range(10)))
    assert most == module.MAX_THREADS


async def test_a_crowd_is_turned_away_instead_of_queueing_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()
    monkeypatch.setattr(Argon2Hasher, "hash", lambda *_, **__: str(release.wait()))
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.05)
    passwords = Passwords()
    try:
        async with asyncio.timeout(10):
            answers = await asyncio.gather(
                *(passwords.hash(RIGHT) for _ in range(5)), return_exceptions=True
            )
    finally:
        release.set()
    assert [type(answer) for answer in answers] == [Unavailable] * 5
