"""Settings of accounts and access tokens.

Keys have names: `2026-11:secret,2026-05:older-secret`. The first signs, all verify.
docs/accounts.md describes the rotation.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from app.settings_base import RANDOM_COMMAND, EnvironmentSettings, production_value

KEY = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,32}):(?P<secret>[^\s,]+)")
MIN_SECRET_LENGTH = 32  # characters: HS256 needs a key of at least 256 bits (RFC 7518, 3.2)
MIN_DISTINCT = 10  # different characters: a random secret has more, even in hexadecimal
PLACEHOLDER = re.compile(
    r"change|secret|passw|example|placeholder|replace|development", re.IGNORECASE
)
HOW = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))" makes a secret'


def parse_keys(text: str) -> dict[str, str]:
    """Return the secrets by name, the one that signs first.

    Raises:
        ValueError: the text is no list of `name:secret`, a name occurs twice or a secret is short.
    """
    keys: dict[str, str] = {}
    for item in text.split(","):
        match = KEY.fullmatch(item.strip())
        if match is None:
            raise ValueError("it must be name:secret, or several of them with commas between")
        if match["name"] in keys:
            raise ValueError(f"two keys have the name {match['name']}")
        if len(match["secret"]) < MIN_SECRET_LENGTH:
            raise ValueError(f"a secret must have at least {MIN_SECRET_LENGTH} characters; {HOW}")
        keys[match["name"]] = match["secret"]
    return keys


def _check(keys: SecretStr) -> SecretStr:
    parse_keys(keys.get_secret_value())
    return keys


class AuthSettings(EnvironmentSettings):
    auth_keys: Annotated[SecretStr, AfterValidator(_check)] | None = Field(
        None,
        description="Keys that sign access tokens: name:secret, comma-separated. The first signs, "
        "all verify; at least 32 characters. Without it, development generates one at every start.",
        json_schema_extra=production_value(
            f"A name, a colon and the output of {RANDOM_COMMAND}", required=True
        ),
    )
    access_token_minutes: int = Field(
        15, ge=1, le=60, description="Lifetime of an access token. It cannot be revoked earlier."
    )
    session_days: int = Field(
        30, ge=1, le=365, description="Days without activity after which a session ends."
    )
    refresh_grace_seconds: int = Field(
        10,
        ge=0,
        le=60,
        description="Seconds in which a refresh token can be sent again, by a second tab or after "
        "a lost response. A later use ends the session.",
    )

    def insecure_values(self) -> list[str]:
        found = super().insecure_values()
        if self.auth_keys is None:
            return [*found, f"AUTH_KEYS is missing: set it to name:secret; {HOW}"]
        secrets = parse_keys(self.auth_keys.get_secret_value()).values()
        if any(PLACEHOLDER.search(s) or len(set(s)) < MIN_DISTINCT for s in secrets):
            found.append(f"AUTH_KEYS has a placeholder for a secret; {HOW}")
        return found
