"""Hash passwords with argon2id, in threads.

One hash takes tens of milliseconds of a core and 19 MiB. Threads keep the event loop free, and
their number limits the cores and the memory of concurrent log-ins.
"""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.errors import Unavailable

# From OWASP's Password Storage Cheat Sheet. Weaker hashes are replaced at the next log-in.
MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
MAX_THREADS = 2  # in a process
MAX_WAIT_SECONDS = 5.0  # then 503: a longer wait would only lengthen the queue

# For unknown addresses. No password has this hash, and verification takes as long as for others.
UNKNOWN_ACCOUNT_HASH = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${'A' * 22}${'A' * 43}"

R = TypeVar("R")


class Passwords:
    """Hash and verify passwords."""

    def __init__(self) -> None:
        hasher = Argon2Hasher(memory_cost=MEMORY_KIB, time_cost=PASSES, parallelism=LANES)
        self._hasher = PasswordHash((hasher,))
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="passwords")

    async def hash(self, password: str) -> str:
        """Return the hash to store.

        Raises:
            Unavailable: no thread was free in time.
        """
        return await self._run(self._hasher.hash, _normal(password))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Compare a password with a hash. Without a hash the result is False after the same time.

        Returns:
            Whether the password matches, and a new hash if the stored one has older parameters.

        Raises:
            Unavailable: no thread was free in time.
        """
        return await self._run(
            self._hasher.verify_and_update, _normal(password), stored or UNKNOWN_ACCOUNT_HASH
        )

    async def _run(self, function: Callable[..., R], *arguments: str) -> R:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                return await loop.run_in_executor(self._threads, function, *arguments)
        except TimeoutError as error:
            raise Unavailable("Too many log-ins at once.") from error


def _normal(password: str) -> str:
    """Normalize Unicode, as NIST SP 800-63B-4, 3.1.1.2 requires."""
    return unicodedata.normalize("NFKC", password)
