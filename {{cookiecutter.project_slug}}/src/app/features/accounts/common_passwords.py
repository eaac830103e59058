"""Refuse the most common passwords, as NIST SP 800-63B-4, 3.1.1.2 requires.

Few of them have the minimum length, so repetitions are refused as well: `qwerty12qwerty12`.
"""

import unicodedata
from functools import cache
from pathlib import Path

from pydantic_core import PydanticCustomError

LIST = Path(__file__).with_suffix(".txt")


def refuse_common_password(password: str) -> str:
    """Return a password that is not common.

    Raises:
        PydanticCustomError: the password is common. The response names its field.
    """
    if _shortest_part(unicodedata.normalize("NFKC", password).lower()) in _common_passwords():
        raise PydanticCustomError(
            "common_password", "This is one of the most common passwords: choose another one"
        )
    return password


def _shortest_part(text: str) -> str:
    """Return the part that the text repeats, or the whole text."""
    return text[: (text + text).find(text, 1)]


@cache
def _common_passwords() -> frozenset[str]:
    lines = LIST.read_text(encoding="ascii").splitlines()
    return frozenset(_shortest_part(line) for line in lines if not line.startswith("#"))
