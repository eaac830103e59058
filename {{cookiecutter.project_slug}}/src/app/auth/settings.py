"""The settings of accounts: types for settings.py, each with what people read about it.

Keys have names, `2026-11:secret,2026-05:older-secret`: the first signs, all verify. So a key is
replaced by putting a new one before it, and taken out when the tokens that it signed have expired.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

KEY = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,32}):(?P<secret>[^\s,]+)")
SHORTEST_SECRET = 32  # characters: HS256 wants as many bits as it has itself (RFC 7518, 3.2)
FEWEST_DIFFERENT = 10  # characters in a secret: a random one has more, even in hexadecimal
PLACEHOLDER = re.compile(
    r"change|secret|passw|example|placeholder|replace|development", re.IGNORECASE
)
HOW = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))" makes a secret'


def parse_keys(text: str) -> dict[str, str]:
    """Secrets by name, the one that signs first.

    Raises:
        ValueError: it is no list of `name:secret`, a name occurs twice or a secret is short.
    """
    keys: dict[str, str] = {}
    for item in text.split(","):
        match = KEY.fullmatch(item.strip())
        if match is None:
            raise ValueError("it must be name:secret, or several of them with commas between")
        if match["name"] in keys:
            raise ValueError(f"two keys have the name {match['name']}")
        if len(match["secret"]) < SHORTEST_SECRET:
            raise ValueError(f"a secret must have {SHORTEST_SECRET} characters at least; {HOW}")
        keys[match["name"]] = match["secret"]
    return keys


def weak_keys(keys: SecretStr | None) -> list[str]:
    """What is wrong with keys that are no secret: fine on a laptop, refused elsewhere."""
    if keys is None:
        return [f"AUTH_KEYS is missing: set it to name:secret; {HOW}"]
    secrets = parse_keys(keys.get_secret_value()).values()
    if any(PLACEHOLDER.search(s) or len(set(s)) < FEWEST_DIFFERENT for s in secrets):
        return [f"AUTH_KEYS has a placeholder for a secret; {HOW}"]
    return []


def _check(keys: SecretStr) -> SecretStr:
    parse_keys(keys.get_secret_value())
    return keys


AuthKeys = Annotated[
    Annotated[SecretStr, AfterValidator(_check)] | None,
    Field(
        description="What signs access tokens: name:secret, comma-separated. The first signs, all "
        "verify; 32 characters up. Without it, development makes up one at every start."
    ),
]
AccessTokenMinutes = Annotated[
    int,
    Field(ge=1, le=60, description="How long an access token is good, whatever happens meanwhile."),
]
SessionDays = Annotated[
    int, Field(ge=1, le=365, description="How long somebody who does nothing stays logged in.")
]
