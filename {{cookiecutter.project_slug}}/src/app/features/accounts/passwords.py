"""Passwords, hashed with argon2id in threads of their own.

One hash takes tens of milliseconds of a core and 19 MiB: the event loop must not wait for it, and
a crowd at the log-in must take neither all cores nor all memory.
"""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.errors import Unavailable

# OWASP's Password Storage Cheat Sheet; a hash made with less is replaced at the next log-in.
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
AT_ONCE = 2  # in a process; the service has other things to do
LONGEST_WAIT_SECONDS = 5.0  # then 503: waiting longer would only make the queue longer

# Nobody's: no password is known that has this hash. Verifying takes as long as for anybody's.
NOBODYS_HASH = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${'A' * 22}${'A' * 43}"

R = TypeVar("R")


class Passwords:
    """Makes hashes, and compares passwords with them."""

    def __init__(self) -> None:
        hasher = Argon2Hasher(memory_cost=MEMORY_KIB, time_cost=PASSES, parallelism=LANES)
        self._hasher = PasswordHash((hasher,))
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")

    async def hash(self, password: str) -> str:
        """A hash to be stored.

        Raises:
            Unavailable: too many are waiting for theirs.
        """
        return await self._run(self._hasher.hash, _normal(password))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Compare a password with a hash; without one, take as long and say no.

        Returns:
            Whether it is the password, and a better hash if the stored one is of an older kind.

        Raises:
            Unavailable: too many are waiting for theirs.
        """
        return await self._run(
            self._hasher.verify_and_update, _normal(password), stored or NOBODYS_HASH
        )

    async def _run(self, function: Callable[..., R], *arguments: str) -> R:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                return await loop.run_in_executor(self._threads, function, *arguments)
        except TimeoutError as error:
            raise Unavailable("Too many are logging in right now.") from error


def _normal(password: str) -> str:
    """One form for what keyboards type in several: NIST SP 800-63B-4, 3.1.1.2."""
    return unicodedata.normalize("NFKC", password)
