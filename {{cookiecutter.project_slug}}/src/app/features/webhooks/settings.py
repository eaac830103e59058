"""Settings of webhooks."""

import base64
import re
from dataclasses import dataclass
from typing import Annotated, Literal, cast, get_args

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from app.settings_base import RANDOM_COMMAND, Token, production_value

KindName = Literal["standard", "meta", "github"]

ENTRY = re.compile(
    rf"(?P<source>[a-z0-9-]+):((?P<kind>{'|'.join(get_args(KindName))}):)?(?P<secret>[!-~]+)"
)
# 24 to 64 bytes in base64, as Standard Webhooks requires.
STANDARD_SECRET = re.compile(r"whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2,3}={0,2})?")
MIN_SECRET_LENGTH = 32  # characters, of the other kinds; Meta's app secrets have 32
MIN_DISTINCT = 8  # characters; of random app secrets, one in 20 million has fewer
PLACEHOLDER = re.compile(r"change|secret|passw|example|placeholder|replace", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """The kind of signatures of a source, and its keys: two while one replaces the other."""

    kind: KindName
    keys: list[bytes]


def parse_secrets(text: str) -> dict[str, Source]:
    """Return the sources by their names.

    Raises:
        ValueError: an entry is invalid. Its number is named, since any part may be a secret.
    """
    sources: dict[str, Source] = {}
    for number, entry in enumerate(text.removesuffix(",").split(","), 1):
        match = ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(
                f"entry {number} is invalid: write source:whsec_..., source:meta:secret or "
                "source:github:secret, separated by commas"
            )
        kind = cast("KindName", match["kind"] or "standard")
        try:
            key = _standard_key(match["secret"]) if kind == "standard" else _key(match["secret"])
        except ValueError as error:
            raise ValueError(f"entry {number}: {error}; see docs/webhooks.md") from None
        source = sources.setdefault(match["source"], Source(kind, []))
        if source.kind != kind:
            raise ValueError(f"entry {number}: an earlier entry of its source has another kind")
        source.keys.append(key)
    return sources


def _standard_key(secret: str) -> bytes:
    if not STANDARD_SECRET.fullmatch(secret):
        raise ValueError("a secret of the kind standard is whsec_ and 24 to 64 bytes in base64")
    digits = secret.removeprefix("whsec_").rstrip("=")
    return base64.b64decode(digits + "=" * (-len(digits) % 4))


def _key(secret: str) -> bytes:
    if len(secret) < MIN_SECRET_LENGTH:
        raise ValueError(f"a secret must have at least {MIN_SECRET_LENGTH} characters")
    if PLACEHOLDER.search(secret) or len(set(secret)) < MIN_DISTINCT:
        raise ValueError("the secret is a placeholder: replace it")
    return secret.encode()


def _check(secrets: SecretStr) -> SecretStr:
    parse_secrets(secrets.get_secret_value())
    return secrets


class WebhookSettings(BaseModel):
    webhook_secrets: Annotated[SecretStr, AfterValidator(_check)] | None = Field(
        None,
        description="Sources and their secrets, comma-separated: shop:whsec_... for Standard "
        "Webhooks, name:meta:... and name:github:... for these; a source has two while one "
        "replaces the other.",
        json_schema_extra=production_value("See docs/webhooks.md."),
    )
    webhook_verify_token: Token = Field(
        None,
        description="The expected hub.verify_token of a challenge; at least 16 characters.",
        json_schema_extra=production_value(f"Make it with {RANDOM_COMMAND}"),
    )
